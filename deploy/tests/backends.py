"""Asks a backend through the gateway, then around it with what the gateway had sent: backends.py NAME GATEWAY TAP BACKEND

The gateway's upstream is a tap of this process: it keeps every request as it came, passes it on to the backend byte for byte,
and the answer back. Called by backends.sh.
"""

import http.client
import http.server
import json
import os
import socket
import subprocess
import sys
import threading

NAME = sys.argv[1]
GATEWAY, TAP, BACKEND = (int(port) for port in sys.argv[2:])
KEY = ("X-Embed-Key", "pk_live_0123456789abcdef")
captured = []


def send(port, method, target, headers, body, declared=None):
    """Exactly these headers, and the body's length; the answer's status and its JSON."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        length = len(body) if declared is None else declared
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), f"Content-Length: {length}"]
        connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        answer = http.client.HTTPResponse(connection, method=method)
        answer.begin()
        return answer.status, json.loads(answer.read() or b"null")


class Tap(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        headers = [(name, value) for name, value in self.headers.items() if name.lower() != "content-length"]
        captured.append((self.command, self.path, headers, body))
        status, told = send(BACKEND, self.command, self.path, headers, body)
        text = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST

    def log_request(self, *_):
        pass


def expect(what, got, wanted):
    if got != wanted:
        sys.exit(f"{NAME}: {what}: {got}, not {wanted}")


def token(*more):
    command = [os.environ["doorward"], "token", "mint", "--format", "jwt", "--secret-env", "ACME_IDENTITY_SECRET"]
    command += ["--subject", "Ada Lövelace", "--claim", "email=ada@example.com", *more]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def told(level, subject, claims, size):
    return 200, {"level": level, "tenant": "acme", "subject": subject, "claims": claims, "bytes": size}


def through_the_gateway():
    body = b'{"message": "hi"}'
    claims = {"sub": "Ada Lövelace", "email": "ada@example.com"}
    lies = [("X-Identity-Subject", "victim"), ("X-Identity-Level", "stepped_up"), ("X-User-Email", "victim"), ("Signature", "a=:AAAA:")]
    signed_in = ("X-User-Token", token())
    expect("nobody", send(GATEWAY, "GET", "/", [KEY, ("Host", "a")], b""), told("anonymous", None, {}, 0))
    unsigned = b'{"user_id": "victim"}'
    expect("an unsigned id", send(GATEWAY, "POST", "/chat", [KEY, ("Host", "a")], unsigned), told("claimed", None, {}, len(unsigned)))
    large = b"x" * (3 * 1024 * 1024)
    got = send(GATEWAY, "POST", "/upload", [KEY, ("Host", "a"), signed_in], large)
    expect("a body that is not held", got, told("verified", "Ada Lövelace", claims, len(large)))
    status, confirmed = send(GATEWAY, "GET", "/?a=%20b", [KEY, ("Host", "a"), ("X-User-Token", token("--claim", "amr=mfa", "--stepped-up-now"))], b"")
    expect("a confirmed user", (status, confirmed["level"], confirmed["subject"], confirmed["claims"]["amr"]), (200, "stepped_up", "Ada Lövelace", "mfa"))
    got = send(GATEWAY, "POST", "/chat?a=1", [KEY, ("Host", "a"), signed_in, ("Content-Type", "application/json"), *lies], body)
    expect("a user, and lies beside the token", got, told("verified", "Ada Lövelace", claims, len(body)))
    return captured[-1]


def around_it(method, target, headers, body):
    """Every change refuses a request that is accepted as it was."""
    identity = [name for name, _ in headers if name.lower().startswith(("x-identity-", "x-user-email", "signature", "content-digest"))]
    harmless = [("Host", "a"), ("Content-Type", "application/json")]
    changed = {
        "without a signature": (method, target, harmless, body),
        "with a forged level": (method, target, [*harmless, ("X-Identity-Level", "verified"), ("X-Identity-Subject", "victim")], body),
        "replayed on another path": (method, "/admin?a=1", headers, body),
        "replayed on a path below": (method, "/chat/?a=1", headers, body),
        "replayed with another query": (method, "/chat?a=2", headers, body),
        "replayed without its query": (method, "/chat", headers, body),
        "replayed with another method": ("GET", target, headers, body),
        "replayed with another body": (method, target, headers, body.replace(b"hi", b"ho")),
        "replayed without a body": (method, target, headers, b""),
    }
    for stripped in identity:
        changed[f"without {stripped}"] = (method, target, [(name, value) for name, value in headers if name != stripped], body)
        changed[f"with {stripped} twice"] = (method, target, [*headers, (stripped, "victim")], body)
    for added in ["X-Identity-Session-Id", "X-Identity-New", "X-Doorward-Subject"]:
        changed[f"with {added}"] = (method, target, [*headers, (added, "victim")], body)
    expect("as captured", send(BACKEND, method, target, headers, body)[0], 200)
    for what, request in changed.items():
        status, why = send(BACKEND, *request)
        expect(f"{what}: {why}", status, 401)
    expect("as captured, after all those", send(BACKEND, method, target, headers, body)[0], 200)
    # More than a backend holds, of even more that is announced.
    expect("a large body", send(BACKEND, method, target, headers, b"x" * (1024 * 1024 + 4096), 2**30)[0], 413)
    return len(changed)


tap = http.server.ThreadingHTTPServer(("127.0.0.1", TAP), Tap)
threading.Thread(target=tap.serve_forever, daemon=True).start()
print(f"ok: {NAME}: five callers through the gateway; around it {around_it(*through_the_gateway())} requests refused, the original not")
