"""Signs who the user is, for your page to send to the gateway. Standard library only.

    echo '{"format": "jwt", "claims": {"sub": "user_123"}}' | IDENTITY_SECRET=… python3 sign.py

Only for the user of your own login session: never an id that came from the page. One secret signs one format.
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time


def user_hash(secret, user_id):
    """Format `hmac`. It never expires: prefer user_token where your client can carry one."""
    return mac(secret, real(user_id).encode()).hex()


def karta_token(secret, user_id, stepped_up_at, aal):
    """Format `karta-v2`: the user confirmed who they are, at this time (Unix seconds) and in this way, such as "mfa"."""
    payload = encoded({"user_id": real(user_id), "stepped_up_at": stepped_up_at, "aal": aal})
    return f"v2.{payload}.{mac(secret, payload.encode()).hex()}"


def user_token(secret, claims, now=None, lifetime=300):
    """Format `jwt`, HS256: the claims, with `sub` or `user_id` among them, good for `lifetime` seconds."""
    real(claims.get("user_id", claims.get("sub")))
    now = int(time.time()) if now is None else now
    signed = encoded({"alg": "HS256", "typ": "JWT"}) + "." + encoded({**claims, "iat": now, "exp": now + lifetime})
    return f"{signed}.{base64url(mac(secret, signed.encode()))}"


def real(user_id):
    """Refuses what comes out where nobody is signed in."""
    if not isinstance(user_id, str) or user_id in ("", "undefined", "null", "None"):
        raise ValueError("nobody is signed in")
    return user_id


def mac(secret, message):
    return hmac.digest(secret, message, hashlib.sha256)


def encoded(value):
    return base64url(json.dumps(value, separators=(",", ":")).encode())


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


if __name__ == "__main__":  # a line of JSON in, a token out
    secret = os.environb[b"IDENTITY_SECRET"]
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        now = asked.get("now", int(time.time()))
        if asked["format"] == "hmac":
            print(user_hash(secret, asked["user_id"]))
        elif asked["format"] == "karta-v2":
            print(karta_token(secret, asked["user_id"], now, asked["aal"]))
        else:
            print(user_token(secret, asked["claims"], now))
