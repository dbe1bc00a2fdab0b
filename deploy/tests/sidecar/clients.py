"""Callers who know their own answers: `clients.py ADDRESS TOKEN_FILE STOP_FILE SLOW_SECONDS`, run by sidecar.sh while a Pod stops.

Four keep their connection, four open one for each request, and four each wait for one slow answer; a request that did not get its own
right answer is lost, and none is sent twice. Writes `STOP_FILE.slow` when the slow ones are under way, runs until STOP_FILE exists, and
prints what came of it as JSON.
"""

import collections
import http.client
import json
import pathlib
import sys
import threading
import time

address, token_file, stop, slow = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), sys.argv[4]
HEADERS = {
    "Authorization": "Bearer pk_live_Zk3Tn8Qw5Rb1Yc7M",
    "Origin": "https://support.example.com",
    "X-User-Token": pathlib.Path(token_file).read_text().strip(),
}
answered, slowly, lost = collections.Counter(), collections.Counter(), []
lock = threading.Lock()


def ask(connection, path, counter):
    began = time.time()
    try:
        connection.request("POST", path, body=b'{"message": "hi"}', headers=HEADERS)
        answer = connection.getresponse()
        text = answer.read().decode()
        greeting, _, pod = text.strip().rpartition(" from ")
        if (answer.status, greeting) != (200, "Hello user_123 (verified)"):
            raise ValueError(f"{answer.status} {text!r}")
        with lock:
            counter[pod] += 1
    except Exception as why:
        with lock:
            lost.append(f"{path} after {time.time() - began:.2f} s: {type(why).__name__} {why}")
        connection.close()


def keep():
    connection = http.client.HTTPConnection(address, timeout=30)
    while not stop.exists():
        ask(connection, "/chat", answered)
        time.sleep(0.01)


def open_each():
    while not stop.exists():
        connection = http.client.HTTPConnection(address, timeout=30)
        ask(connection, "/chat", answered)
        connection.close()
        time.sleep(0.02)


def wait_long():
    ask(http.client.HTTPConnection(address, timeout=60), f"/chat?seconds={slow}", slowly)


threads = [threading.Thread(target=target) for target in [keep, open_each, wait_long] for _ in range(4)]
for thread in threads:
    thread.start()
time.sleep(1)
pathlib.Path(f"{stop}.slow").touch()
for thread in threads:
    thread.join()
print(json.dumps({"answered": answered, "slow": slowly, "lost": lost}))
