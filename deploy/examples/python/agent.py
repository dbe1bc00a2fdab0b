"""A backend of a few lines: greets whom the gateway vouches for. The README's example.

    DOORWARD_ASSERTION_KEY=… python3 agent.py PORT

Prints the headers of every request, so that you can see what arrives. Standard library only.
"""

import http.server
import os
import sys

from verify import Refused, verify

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


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Agent).serve_forever()
