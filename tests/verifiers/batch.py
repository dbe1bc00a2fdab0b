"""Reads captured requests as JSON, one or a list, and says of each whether a verifier takes it.

One: prints ok and exits 0, or prints why and exits 1. A list: prints a list of null or why, and exits 0.
"""

import base64
import json
import sys


def run(verify):
    given = json.load(sys.stdin)
    answers = [judge(verify, case) for case in (given if isinstance(given, list) else [given])]
    if isinstance(given, list):
        json.dump(answers, sys.stdout)
    else:
        print(answers[0] or "ok")
        sys.exit(1 if answers[0] else 0)


def judge(verify, case):
    try:
        verify(case)
        return None
    except Exception as why:  # whatever a library raises is its way to refuse
        return f"{type(why).__name__}: {why}"


def body(case):
    return base64.b64decode(case.get("body_b64") or "")


def key(case):
    return base64.b64decode(case["key_b64"])


def joined(case):
    """Header fields by lower-case name, doubled ones joined as RFC 9110 section 5.3 says."""
    fields = {}
    for name, value in case["headers"]:
        name = name.lower()
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields
