"""A backend of a few lines: greets whom the gateway vouches for. The README's example.

    DOORWARD_ASSERTION_KEY=… python3 agent.py PORT [ADDRESS]

The key can stand in the file that DOORWARD_ASSERTION_KEY_FILE names. Prints the headers of every request, so that you can see
what arrives. Standard library only.
"""

import http.server
import os
import pathlib
import sys

from verify import Refused, verify

if "DOORWARD_ASSERTION_KEY_FILE" in os.environ:
    KEY = pathlib.Path(os.environ["DOORWARD_ASSERTION_KEY_FILE"]).read_bytes().removesuffix(b"\n")
else:
    KEY = os.environb[b"DOORWARD_ASSERTION_KEY"]


class Agent(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        print(self.headers, end="", flush=True)
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        path, _, query = self.path.partition("?")
        try:
            who = verify(self.command, path, query, self.headers.items(), body, key_id="a1", key=KEY, audience="agent")
            self.answer(200, f"Hello {who.get('subject', 'stranger')} ({who['level']})")
        except Refused as why:
            self.answer(401, f"refused: {why}")

    def answer(self, status, text):
        body = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self):
        return "agent"

    def log_request(self, *_):
        pass


address = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1"
http.server.ThreadingHTTPServer((address, int(sys.argv[1])), Agent).serve_forever()
