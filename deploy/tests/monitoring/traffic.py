"""The known traffic of the dashboard's test, and what stays open while it is looked at.

    python3 traffic.py GATEWAY_PORT PROBES_PORT GOOD_TOKEN READY_FILE

Writes READY_FILE when everything was sent and counted, then holds its connections until it is ended. Every request is on a
connection of its own, closed before the next, but for those that are held. What is sent here stands, as numbers, in
deploy/grafana/expected.json.
"""

import base64
import http.client
import pathlib
import re
import signal
import socket
import sys
import time

gateway, probes, good, ready = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], pathlib.Path(sys.argv[4])
APP = {"Origin": "https://app.example.com"}
ACME = {**APP, "Authorization": "Bearer ab_live_acme_0123456789"}
BETA = {**APP, "Authorization": "Bearer ab_live_beta_0123456789"}
UNKNOWN = base64.urlsafe_b64encode(b'{"alg":"EdDSA","kid":"k2"}').decode().rstrip("=") + ".e30." + "A" * 86
FORGED = good.rpartition(".")[0] + "." + "A" * 43


def ask(status, headers, path="/chat", method="GET", connection=None):
    """Asks, and stops the test where the answer is another than the one that the figures are made of."""
    used = connection or http.client.HTTPConnection("127.0.0.1", gateway, timeout=10)
    used.request(method, path, headers=headers)
    answer = used.getresponse()
    answer.read()
    if answer.status != status:
        sys.exit(f"{method} {path} {headers}: {answer.status} {answer.headers.get('x-doorward-reason')}, not {status}")
    if connection is None:
        used.close()


def metric(line):
    """The value of a metric, now."""
    connection = http.client.HTTPConnection("127.0.0.1", probes, timeout=10)
    connection.request("GET", "/metrics")
    found = re.search(rf"^{re.escape(line)} (\S+)$", connection.getresponse().read().decode(), re.M)
    return float(found.group(1)) if found else None


def counted(line, value):
    """Waits: a request is counted after it was answered."""
    deadline = time.monotonic() + 15
    while metric(line) != value:
        if time.monotonic() > deadline:
            sys.exit(f"{line} is {metric(line)}, not {value}")
        time.sleep(0.02)


for _ in range(20):
    ask(200, {**ACME, "X-User-Token": good})
for _ in range(5):
    ask(200, ACME)
for _ in range(3):
    ask(403, {**ACME, "X-User-Token": FORGED})
for _ in range(2):
    ask(403, {**ACME, "Origin": "https://evil.example"})
for _ in range(4):
    ask(403, {**ACME, "X-User-Id": "ann"})
for status in (200, 200, 429):
    ask(status, ACME, "/limited")
for _ in range(4):
    ask(502, ACME, "/gone")
# Of two addresses one is gone: asked in turn, so the second request at the latest meets it, and is tried again at the other.
for _ in range(2):
    ask(200, ACME, "/pair")
for _ in range(2):
    ask(204, {**APP, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}, method="OPTIONS")
for _ in range(6):
    ask(200, BETA)
for _ in range(5):
    ask(200, {**BETA, "X-User-Id": "ann"})
for _ in range(2):
    ask(200, {**BETA, "X-User-Token": FORGED})
for _ in range(3):
    ask(403, {**APP, "Authorization": "Bearer ab_live_nobody_0123456"})
# A token by a key that is not in the issuer's set has it fetched again.
fetched = metric('doorward_jwks_fetches_total{result="fetched"}')
ask(401, {**APP, "X-Embed-Key": "ab_live_idp_01234567890", "Authorization": f"Bearer {UNKNOWN}"})
counted('doorward_jwks_fetches_total{result="fetched"}', fetched + 1)

# A client that sends half a head is cut after header_timeout.
slow = socket.create_connection(("127.0.0.1", gateway))
slow.sendall(b"GET /chat HTTP/1.1\r\nHost: x\r\n")
counted('doorward_connections_cut_total{late="header"}', 1)
slow.close()

# Held: three idle connections, and one whose request is still at work.
counted("doorward_connections", 0)
held = [http.client.HTTPConnection("127.0.0.1", gateway) for _ in range(3)]
for connection in held:
    ask(200, ACME, connection=connection)
at_work = http.client.HTTPConnection("127.0.0.1", gateway)
at_work.request("GET", "/slow", headers=ACME)
counted("doorward_requests_in_flight", 1)
# Up to the cap of twelve, two beyond it, and back.
more = []
for n in range(5, 13):
    more.append(http.client.HTTPConnection("127.0.0.1", gateway))
    ask(200, ACME, connection=more[-1])
for _ in range(2):
    refused = socket.create_connection(("127.0.0.1", gateway))
    try:
        if refused.recv(1):
            sys.exit("a connection beyond the cap was served")
    except ConnectionResetError:
        pass
    refused.close()
for connection in more:
    connection.close()
counted("doorward_connections", 4)
counted('doorward_requests_total{level="anonymous",outcome="forwarded",reason="",tenant="acme"}', 20)
counted('doorward_requests_total{level="",outcome="denied",reason="embed_key_unknown",tenant="unknown"}', 3)
ready.write_text("everything was sent\n")
signal.pause()
