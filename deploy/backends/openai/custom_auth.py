"""LiteLLM's custom_auth: whoever the gateway vouches for is let in, as that user; nobody else is.

Needs ../../examples/python/verify.py in PYTHONPATH, and DOORWARD_ASSERTION_KEY.
"""

import os

from fastapi import HTTPException, Request
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import UserAPIKeyAuth
from verify import Refused, verify

EXPECTED = {
    "key_id": "a1",
    "key": os.environb[b"DOORWARD_ASSERTION_KEY"],
    "audience": "litellm",
    "mapped": ["X-Litellm-End-User-Id"],  # LiteLLM reads it itself, so it must be covered
}


async def doorward(request: Request, api_key: str) -> UserAPIKeyAuth:
    """LiteLLM calls this for every request; `api_key` is not looked at, since the gateway removed what the client sent."""
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.scope["headers"]]
    path, query = request.scope["raw_path"].decode("latin-1"), request.scope["query_string"].decode("latin-1")
    try:
        who = verify(request.method, path, query, headers, await request.body(), **EXPECTED)
    except Refused as why:
        raise HTTPException(401, f"refused: {why}") from None
    if "subject" not in who:
        raise HTTPException(401, "refused: nobody is signed in")
    # Spend, budgets and rate limits are counted by these.
    return UserAPIKeyAuth(user_id=who["subject"], user_email=who.get("claims", {}).get("email"))


class Greeting(CustomLogger):
    """Says whom LiteLLM takes the caller for, so that it can be seen without a model."""

    async def async_pre_call_hook(self, user_api_key_dict, cache, data, call_type):
        data["mock_response"] = f"Hello {user_api_key_dict.user_id}, billed to {user_api_key_dict.end_user_id}"
        return data


greeting = Greeting()
