"""The agent of sidecar.sh: `agent.py PORT ADDRESS` greets whom the gateway vouches for, and says which Pod it is.

deploy/examples/python/verify.py decides who is talking. ?seconds=N makes an answer slow. Told to stop it ends at once, with whatever it
is about to answer: the worst that an agent can do to a gateway that still drains.
"""

import http.server
import os
import pathlib
import signal
import socket
import sys
import time
import urllib.parse

from verify import Refused, verify

KEY = pathlib.Path(os.environ["DOORWARD_ASSERTION_KEY_FILE"]).read_bytes().removesuffix(b"\n")


class Agent(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        path, _, query = self.path.partition("?")
        try:
            who = verify(self.command, path, query, self.headers.items(), body, key_id="a1", key=KEY, audience="agent")
            time.sleep(float(urllib.parse.parse_qs(query).get("seconds", ["0"])[0]))
            self.answer(200, f"Hello {who.get('subject', 'stranger')} ({who['level']}) from {socket.gethostname()}")
        except Refused as why:
            self.answer(401, f"refused: {why}")

    def answer(self, status, text):
        body = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128


for stop in [signal.SIGTERM, signal.SIGINT]:
    signal.signal(stop, lambda *_: os._exit(0))
Server((sys.argv[2], int(sys.argv[1])), Agent).serve_forever()
