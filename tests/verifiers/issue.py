"""The same issuer as issue.mjs, made of PyJWT and cryptography."""

import json
import sys

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

MAKE = {
    "RS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "RS256-1024": lambda: rsa.generate_private_key(public_exponent=65537, key_size=1024),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}

asked = json.load(sys.stdin)
answer = {"keys": {}, "pem": {}, "tokens": []}
private = {}
for wanted in asked["keys"]:
    kid, kind = wanted["kid"], wanted["alg"]
    alg = kind.split("-")[0]
    key = MAKE[kind]()
    private[kid] = (key, alg)
    public = jwt.get_algorithm_by_name(alg).to_jwk(key.public_key(), as_dict=True)
    answer["keys"][kid] = {**public, "kid": kid, "alg": alg, "use": "sig"}
    answer["pem"][kid] = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
for wanted in asked["tokens"]:
    key, alg = private[wanted["kid"]]
    header = {"kid": wanted["kid"], **wanted.get("header", {})}
    answer["tokens"].append(jwt.encode(wanted["claims"], key, algorithm=alg, headers=header))
json.dump(answer, sys.stdout)
