"""Runs ../vectors.json through verify.py: python3 test_verify.py"""

import base64
import json
import pathlib

from verify import Refused, verify

vectors = json.loads((pathlib.Path(__file__).parent.parent / "vectors.json").read_text())
for vector in vectors["requests"]:
    expected = {
        "key_id": vectors["key_id"],
        "key": base64.b64decode(vector.get("key_base64", vectors["key_base64"])),
        "audience": vectors["audience"],
        "mapped": vectors["mapped"],
        "now": vector["now"],
    }
    body = base64.b64decode(vector["body_base64"])
    try:
        who = verify(vector["method"], vector["path"], vector["query"], vector["headers"], body, **expected)
        told = {name: who.get(name) for name in ["level", "tenant", "subject", "claimed_subject", "claims"]}
    except Refused as why:
        told = str(why)
    assert told == (vector.get("accepted") or vector["refused"]), f"{vector['name']}: {told}"
print(f"{len(vectors['requests'])} vectors")
