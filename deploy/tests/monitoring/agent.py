"""The backend and the issuer of the dashboard's test: answers everything, `/slow` only once `/release` was asked for, and
`/jwks.json` with one public key (RFC 8037, appendix A.2).

    python3 agent.py PORT
"""

import http.server
import json
import random
import sys
import threading
import time

KEYS = {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k1", "alg": "EdDSA", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}
released = threading.Event()


class Agent(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/release":
            released.set()
        elif self.path == "/slow":
            released.wait()
        elif self.path == "/varied":
            time.sleep(random.lognormvariate(-3.5, 1.0))
        body = json.dumps(KEYS if self.path == "/jwks.json" else {"ok": True}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Agent).serve_forever()
