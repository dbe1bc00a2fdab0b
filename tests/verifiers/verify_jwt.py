"""Verifies captured assertions with PyPI's PyJWT (RFC 7519)."""

import jwt

import batch


def verify(case):
    fields = batch.joined(case)
    token = fields["x-identity-assertion"]
    header = jwt.get_unverified_header(token)
    if header.get("typ") != "doorward-assertion+jwt" or header.get("kid") != case["key_id"]:
        raise ValueError("another typ or kid")
    if "jwks" in case:
        key = jwt.PyJWKSet.from_dict(case["jwks"])[case["key_id"]].key
    else:
        key = batch.key(case)
    required = ["iss", "aud", "iat", "exp", "jti", "level", "tenant", "htm", "htu", "request_id"]
    claims = jwt.decode(
        token, key, algorithms=[case["algorithm"]], audience="agent", issuer="doorward", options={"require": required}
    )
    told = (claims["htm"], claims["htu"], claims["request_id"])
    if told != (case["method"], case["target"], fields["x-identity-request-id"]):
        raise ValueError("made for another request")


batch.run(verify)
