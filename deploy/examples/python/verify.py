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

SKEW = 5  # seconds of clock difference that are forgiven
MAX_LIFETIME = 60  # seconds
REQUIRED = {
    "@method", "@path", "@query",
    "x-identity-level", "x-identity-tenant", "x-identity-audience", "x-identity-request-id",
}  # fmt: skip
NAMES = [
    "level", "tenant", "request-id", "origin", "subject", "claims", "method", "stepped-up-at", "aal", "claimed-subject",
]  # fmt: skip
# The one way in which the gateway writes it; another label, or a second one, does not match.
INPUT = re.compile(
    r'doorward=(?P<params>\((?P<names>"[a-z0-9@-]+"(?: "[a-z0-9@-]+")*)\)'
    r';created=(?P<created>[0-9]{1,12});expires=(?P<expires>[0-9]{1,12});nonce="(?P<nonce>[A-Za-z0-9_-]+)"'
    r';keyid="(?P<keyid>[A-Za-z0-9_.-]+)";alg="hmac-sha256";tag="doorward")',
    re.ASCII,
)
SIGNATURE = re.compile(r"doorward=:(?P<mac>[A-Za-z0-9+/]{43}=):", re.ASCII)


class Refused(Exception):
    """The request names nobody."""


def verify(method, path, query, headers, body, *, key_id, key, audience, now=None, mapped=()):
    """Returns a dict with level, tenant, request_id, and where they apply origin, subject, claims, method, stepped_up_at,
    aal, claimed_subject. `mapped`: names of [upstream.headers] that you read; `now`: Unix seconds."""
    now = time.time() if now is None else now
    fields = {}
    for name, value in headers:
        fields.setdefault(name.lower(), []).append(value)

    signed = INPUT.fullmatch(one(fields, "signature-input"))
    mac = SIGNATURE.fullmatch(one(fields, "signature"))
    if not signed or not mac:
        raise Refused("not the gateway's signature")
    names = [name.strip('"') for name in signed["names"].split(" ")]
    if len(set(names)) != len(names) or not REQUIRED <= set(names):
        raise Refused("a required component is not covered")
    if signed["keyid"] != key_id:
        raise Refused("an unknown key")
    created, expires = int(signed["created"]), int(signed["expires"])
    if not (created - SKEW <= now <= expires + SKEW and created < expires <= created + MAX_LIFETIME):
        raise Refused("expired, or signed in the future")

    # A signature protects what it covers. A header that was added on the way is found here only.
    ours = {name.lower() for name in mapped}
    for name in fields:
        folded = re.sub("[^a-z0-9]", "", name)
        if (folded.startswith(("xidentity", "xdoorward")) or name in ours) and name not in names:
            raise Refused("an identity header is not covered")

    derived = {"@method": method, "@path": path, "@query": "?" + (query or "")}
    lines = [f'"{name}": {derived[name] if name in derived else one(fields, name)}' for name in names]
    base = "\n".join([*lines, f'"@signature-params": {signed["params"]}'])
    expected = base64.b64encode(hmac.digest(key, base.encode("latin-1"), "sha256")).decode()
    if not hmac.compare_digest(expected, mac["mac"]):
        raise Refused("the signature does not match")
    if one(fields, "x-identity-audience") != audience:
        raise Refused("made for another audience")
    if "content-digest" in names:
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        if one(fields, "content-digest") != f"sha-256=:{digest}:":
            raise Refused("the body is not the one that was signed")

    # An empty header does not apply: behind a forward-auth listener every name is there.
    told = {name: one(fields, f"x-identity-{name}") for name in NAMES if fields.get(f"x-identity-{name}", [""]) != [""]}
    identity = {"body_covered": "content-digest" in names}
    for name in ["level", "tenant", "request-id", "origin", "subject", "method", "aal", "claimed-subject"]:
        if name in told:
            identity[name.replace("-", "_")] = urllib.parse.unquote(told[name], errors="strict")
    if "claims" in told:
        identity["claims"] = json.loads(base64.urlsafe_b64decode(told["claims"] + "=" * (-len(told["claims"]) % 4)))
    if "stepped-up-at" in told:
        identity["stepped_up_at"] = int(told["stepped-up-at"])
    if not {"level", "tenant", "request_id"} <= identity.keys():
        raise Refused("a required header is empty")
    if ("subject" in identity) != (identity["level"] in ("verified", "stepped_up")):
        raise Refused("level and subject contradict each other")
    return identity


def one(fields, name):
    values = fields.get(name, [])
    if len(values) != 1:
        raise Refused(f"{name} is missing or was sent twice")
    return values[0]
