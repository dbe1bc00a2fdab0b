"""Reads who is talking from a request that Doorward signed. Standard library only.

    identity = verify(method, path, query, headers, body, key_id="a1", key=KEY, audience="agent")

`path` and `query` as they stand in the request line, not decoded; `headers` as a list of (name, value); KEY the bytes of the
assertion key. Raises Refused for anything that is not exactly what the gateway signs (RFC 9421, RFC 9530), and for every
identity header that the signature does not cover: read identity from this function's answer and from nowhere else.
"""

import base64
import hashlib
import hmac
import json
import re
import time
import urllib.parse

SKEW, MAX_LIFETIME = 5, 60  # seconds: of clock difference that are forgiven, and of a signature's life
REQUIRED = ["level", "tenant", "audience", "request-id"]
TEXTS = ["level", "tenant", "request-id", "origin", "subject", "method", "session-id", "aal", "claimed-subject"]
HAS_SUBJECT = {"anonymous": False, "claimed": False, "verified": True, "stepped_up": True}
# The one way in which the gateway writes it; another label, or a second one, does not match.
INPUT = re.compile(
    r'doorward=(?P<params>\((?P<names>"[a-z0-9@-]+"(?: "[a-z0-9@-]+")*)\)'
    r';created=(?P<created>[0-9]{1,12});expires=(?P<expires>[0-9]{1,12});nonce="[A-Za-z0-9_-]+"'
    r';keyid="(?P<keyid>[A-Za-z0-9_.-]+)";alg="hmac-sha256";tag="doorward")'
)
SIGNATURE = re.compile(r"doorward=:(?P<mac>[A-Za-z0-9+/]{43}=):")


class Refused(Exception):
    """The request names nobody."""


def verify(method, path, query, headers, body, **expected):
    """Head and body in one."""
    return verify_body(verify_head(method, path, query, headers, **expected), body)


def verify_head(method, path, query, headers, *, key_id, key, audience, now=None, mapped=()):
    """Where the answer has a `body_digest`, call verify_body before you believe it. Returns a dict with level, tenant,
    request_id, claims, body_digest, and where they apply subject, origin, method, session_id, stepped_up_at, aal,
    claimed_subject. `mapped`: names of [upstream.headers] that you read; `now`: Unix seconds."""
    fields = {}
    for name, value in headers:
        fields.setdefault(name.lower(), []).append(value)
    signed, mac = INPUT.fullmatch(one(fields, "signature-input")), SIGNATURE.fullmatch(one(fields, "signature"))
    if not signed or not mac:
        raise Refused("not the gateway's signature")
    names = [name.strip('"') for name in signed["names"].split(" ")]
    if len(set(names)) != len(names) or not {"@method", "@path", "@query", *(f"x-identity-{n}" for n in REQUIRED)} <= set(names):
        raise Refused("a required component is not covered")
    if signed["keyid"] != key_id or not key:
        raise Refused("an unknown key")
    now, created, expires = time.time() if now is None else now, int(signed["created"]), int(signed["expires"])
    if not (created - SKEW <= now <= expires + SKEW and created < expires <= created + MAX_LIFETIME):
        raise Refused("expired, or signed in the future")
    # A signature protects what it covers. A header that was added on the way, in any spelling, is found here only.
    ours = {re.sub("[^a-z0-9]", "", name.lower()) for name in mapped}
    for name in fields:
        folded = re.sub("[^a-z0-9]", "", name)
        if (folded.startswith(("xidentity", "xdoorward")) or folded in ours) and name not in names:
            raise Refused("an identity header is not covered")

    derived = {"@method": method, "@path": path, "@query": "?" + (query or "")}
    lines = [f'"{name}": {derived[name] if name in derived else one(fields, name)}' for name in names]
    base = "\n".join([*lines, f'"@signature-params": {signed["params"]}'])
    if not hmac.compare_digest(base64.b64encode(hmac.digest(key, base.encode("latin-1"), "sha256")).decode(), mac["mac"]):
        raise Refused("the signature does not match")
    # From here on the gateway speaks. An empty header does not apply: behind a forward-auth listener every name is there.
    told = {name[len("x-identity-") :]: one(fields, name) for name in names if name.startswith("x-identity-")}
    if told["audience"] != audience:
        raise Refused("made for another audience")
    claims = told.get("claims", "")
    try:
        identity = {n.replace("-", "_"): urllib.parse.unquote(told[n], errors="strict") for n in TEXTS if told.get(n)}
        identity["claims"] = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)) or "{}")
        identity["stepped_up_at"] = int(told.get("stepped-up-at") or 0) or None
    except ValueError as why:
        raise Refused("an identity header does not decode") from why
    if not all(told[name] for name in REQUIRED):
        raise Refused("a required header is empty")
    if HAS_SUBJECT.get(identity["level"]) is not ("subject" in identity):
        raise Refused("level and subject contradict each other")
    return {**identity, "body_digest": one(fields, "content-digest") if "content-digest" in names else None}


def verify_body(identity, body):
    """Compares the whole body with its digest, where that was signed."""
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    if identity["body_digest"] not in (None, f"sha-256=:{digest}:"):
        raise Refused("the body is not the one that was signed")
    return identity


def one(fields, name):
    values = fields.get(name, [])
    if len(values) != 1:
        raise Refused(f"{name} is missing or was sent twice")
    return values[0]
