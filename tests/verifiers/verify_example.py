"""Verifies captured requests with this repository's Python example."""

import pathlib
import sys

import batch

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "deploy" / "examples" / "python"))
import verify as example  # noqa: E402


def verify(case):
    path, _, query = case["target"].partition("?")
    example.verify(
        case["method"], path, query, case["headers"], batch.body(case), key_id=case["key_id"], key=batch.key(case), audience="agent"
    )


batch.run(verify)
