"""Verifies captured requests with PyPI's http-message-signatures (RFC 9421)."""

import datetime
import hashlib

import http_sfv
from http_message_signatures import HTTPMessageVerifier, HTTPSignatureKeyResolver, algorithms
from http_message_signatures.structures import CaseInsensitiveDict

import batch


class Message:
    def __init__(self, case):
        self.method = case["method"]
        self.url = f"http://{case['host']}{case['target']}"
        self.headers = CaseInsensitiveDict(batch.joined(case))


class OneKey(HTTPSignatureKeyResolver):
    def __init__(self, key_id, key):
        self.key_id, self.key = key_id, key

    def resolve_public_key(self, key_id):
        if key_id != self.key_id:
            raise LookupError(f"unknown keyid {key_id}")
        return self.key


def verify(case):
    message = Message(case)
    verifier = HTTPMessageVerifier(
        signature_algorithm=algorithms.HMAC_SHA256, key_resolver=OneKey(case["key_id"], batch.key(case))
    )
    (result,) = verifier.verify(message, max_age=datetime.timedelta(seconds=60))
    if result.label != "doorward":
        raise ValueError("another label")
    if '"content-digest"' in result.covered_components:
        digests = http_sfv.Dictionary()
        digests.parse(message.headers["content-digest"].encode())
        if digests["sha-256"].value != hashlib.sha256(batch.body(case)).digest():
            raise ValueError("the body is not the one that was signed")


batch.run(verify)
