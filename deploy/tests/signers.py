"""Compares what the host-side examples sign with what `doorward token mint` signs, and shows it to `doorward token explain` and
to a gateway: signers.py GATEWAY UPSTREAM FOLDER GO_PROGRAM

Called by signers.sh. UPDATE_VECTORS=1 writes the vectors anew with `doorward token mint`. Times differ from run to run; all
else in a token is compared.
"""

import base64
import hashlib
import hmac
import http.client
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading

GATEWAY, UPSTREAM = int(sys.argv[1]), int(sys.argv[2])
FOLDER, GO = pathlib.Path(sys.argv[3]), sys.argv[4]
VECTORS = FOLDER / "vectors.json"
DOORWARD = os.environ["doorward"]
SIGNERS = {
    "Python": [sys.executable, "-B", FOLDER / "sign.py"],
    "Node": ["node", FOLDER / "sign.mjs"],
    "PHP": ["php", FOLDER / "sign.php"],
    "Ruby": ["ruby", FOLDER / "sign.rb"],
    "Go": [GO],
}
ENVIRONMENT = {"hmac": "HOST_HMAC", "karta-v2": "HOST_KARTA", "jwt": "HOST_JWT"}
TIMES = ["iat", "exp", "stepped_up_at"]
IDS = ["user_123", "42", "Ada Lövelace", "a \"b\" <c> & d/e\\f", "👩‍🚀"]
CLAIMS = [
    {"sub": "user_123"},
    {"user_id": "user_123", "email": "ann@example.com", "name": "Zoë <ann> & \"co\"/\\"},
    {"sub": "Ada Lövelace", "role": ["admin", "dev"], "plan": {"id": 7, "beta": True, "none": None, "empty": {}, "list": []}, "n": -1.5},
]


def run(command, given, **environment):
    done = subprocess.run(command, input=given, capture_output=True, env={**os.environ, **environment})
    return done.returncode, done.stdout.decode().strip(), done.stderr.decode().strip()


def mint(asked):
    """What the gateway's own command makes of the same."""
    command = [DOORWARD, "token", "mint", "--format", asked["format"], "--secret-env", "IDENTITY_SECRET"]
    if asked["format"] == "jwt":
        claims = dict(asked["claims"])
        name = "user_id" if "user_id" in claims else "sub"
        command += ["--subject-claim", name, "--subject", claims.pop(name)]
        for name, value in claims.items():
            command += ["--claim", f"{name}={json.dumps(value)}"]
    else:
        command += ["--subject", asked["user_id"]]
    if asked["format"] == "karta-v2":
        command += ["--stepped-up-now", "--aal", asked["aal"]]
    code, token, why = run(command, b"", IDENTITY_SECRET=asked["secret"])
    return token if code == 0 else sys.exit(f"token mint: {why}")


def parts(asked, token):
    """The JSON of a token's segments, and whether its MAC is this secret's."""
    if asked["format"] == "hmac":
        return [], token == hmac.digest(asked["secret"].encode(), asked["user_id"].encode(), "sha256").hex()
    *signed, mac = token.removeprefix("v2.").split(".")
    expected = hmac.digest(asked["secret"].encode(), ".".join(signed).encode(), hashlib.sha256)
    text = expected.hex() if asked["format"] == "karta-v2" else base64.urlsafe_b64encode(expected).rstrip(b"=").decode()
    return [json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))) for segment in signed], text == mac


def settled(segments):
    return [{name: "*" if name in TIMES else value for name, value in segment.items()} for segment in segments]


def sign(language, jobs, secret):
    """One process for all jobs of one secret; one token a line."""
    lines = "".join(json.dumps(job) + "\n" for job in jobs).encode()
    code, tokens, why = run(SIGNERS[language], lines, IDENTITY_SECRET=secret)
    if code != 0 or len(tokens.splitlines()) != len(jobs):
        sys.exit(f"{language}: {why or tokens}")
    return tokens.splitlines()


def expect(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: {got}, not {wanted}")


def made():
    """The vectors: of each format under a secret of its own."""
    jobs = [{"format": "hmac", "user_id": user_id} for user_id in IDS]
    jobs += [{"format": "karta-v2", "user_id": user_id, "aal": "mfa"} for user_id in IDS]
    jobs += [{"format": "jwt", "claims": claims} for claims in CLAIMS]
    for job in jobs:
        job["secret"] = f"{job['format']}_secret_0123456789abcdef0123456789"
        job["token"] = mint(job)
        payload = (parts(job, job["token"])[0] or [{}])[-1]
        job["now"] = payload.get("stepped_up_at", payload.get("iat", 0))
    return jobs


class Agent(http.server.BaseHTTPRequestHandler):
    """Says what the gateway told it."""

    def do_GET(self):
        text = json.dumps([self.headers[f"X-Identity-{name}"] for name in ["Level", "Subject", "Method"]]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_request(self, *_):
        pass


def ask(asked, token):
    headers = {"X-Embed-Key": f"pk_{asked['format']}_0123456789abcdef", "Origin": "https://app.example.com", "X-User-Token": token}
    if asked["format"] == "hmac":
        headers["X-User-Id"] = asked["user_id"]
    connection = http.client.HTTPConnection("127.0.0.1", GATEWAY, timeout=30)
    connection.request("GET", "/", headers=headers)
    answer = connection.getresponse()
    told = json.loads(answer.read())
    connection.close()
    return answer.status, told


def show(language, asked):
    """A token of now, under the gateway's own secret; and the same under another, which must not pass."""
    secret = os.environ[ENVIRONMENT[asked["format"]]]
    asked = {name: value for name, value in asked.items() if name not in ("now", "token", "secret")}
    (token,) = sign(language, [asked], secret)
    command = [DOORWARD, "token", "explain", "-", "--secret-env", "IDENTITY_SECRET", "--format", asked["format"]]
    command += [] if asked["format"] == "jwt" else ["--subject", asked["user_id"]]
    code, said, why = run(command, token.encode(), IDENTITY_SECRET=secret)
    expect(f"{language}: token explain of {asked}: {said} {why}", code, 0)
    level = "stepped_up" if asked["format"] == "karta-v2" else "verified"
    expect(f"{language}: the gateway, of {asked}", ask(asked, token), (200, [level, "user_123", asked["format"]]))
    (forged,) = sign(language, [asked], "another_secret_0123456789abcdef0123456789")
    status, told = ask(asked, forged)
    expect(f"{language}: the gateway, of a forged {asked['format']}", (status, told.get("reason")), (401, "token_signature_invalid"))


if os.environ.get("UPDATE_VECTORS") == "1":
    VECTORS.write_text("[\n" + ",\n".join("  " + json.dumps(vector, ensure_ascii=False) for vector in made()) + "\n]\n")
vectors = json.loads(VECTORS.read_text())
minted = made()
expect("how many vectors", len(vectors), len(minted))
for vector, fresh in zip(vectors, minted):
    asked = {name: value for name, value in vector.items() if name not in ("now", "token")}
    expect("what a vector asks", asked, {name: value for name, value in fresh.items() if name not in ("now", "token")})
    (segments, matches), (again, _) = parts(vector, vector["token"]), parts(fresh, fresh["token"])
    expect(f"the MAC of {asked}", matches, True)
    expect(f"{asked}, minted again", settled(again), settled(segments))
    if vector["format"] == "hmac":
        expect(f"{asked}, minted again", fresh["token"], vector["token"])
print(f"ok: doorward token mint signs the {len(vectors)} vectors")

threading.Thread(target=http.server.ThreadingHTTPServer(("127.0.0.1", UPSTREAM), Agent).serve_forever, daemon=True).start()
for language in SIGNERS:
    for form in ENVIRONMENT:
        of_form = [vector for vector in vectors if vector["format"] == form]
        for vector, token in zip(of_form, sign(language, of_form, of_form[0]["secret"])):
            segments, matches = parts(vector, token)
            expect(f"{language}: {vector}: the MAC", matches, True)
            expect(f"{language}: {vector}", segments, parts(vector, vector["token"])[0])
        show(language, of_form[0])
        nobody = {"format": form, "user_id": "", "aal": "mfa", "claims": {"sub": ""}}
        refused = run(SIGNERS[language], json.dumps(nobody).encode(), IDENTITY_SECRET=of_form[0]["secret"])
        expect(f"{language}: {form}, nobody being signed in", (refused[0] != 0, refused[1]), (True, ""))
    print(f"ok: {language} signs the {len(vectors)} vectors; a gateway takes its hmac, karta-v2 and jwt of now, and none under another secret")
