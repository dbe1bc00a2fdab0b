"""An agent served by LangServe that knows its user from Doorward, and from nowhere else.

    DOORWARD_ASSERTION_KEY=… uvicorn app:app --host 127.0.0.1 --port 3000 --no-proxy-headers

`Verified` refuses every request that the gateway did not sign. The chain reads `configurable["user_id"]`, which is set here from
what the gateway signed, after whatever the client sent in its place. Needs requirements.txt and ../../examples/python/verify.py.
"""

import os

from fastapi import FastAPI
from langchain_core.runnables import RunnableConfig, RunnableGenerator
from langserve import add_routes
from starlette.responses import JSONResponse
from verify import Refused, verify

MAX_BODY = 1024 * 1024  # the gateway's server.body_hold


class Verified:
    """ASGI middleware: 401 unless Doorward signed the request; `request.state.identity` is what it says."""

    def __init__(self, app, **expected):
        self.app, self.expected = app, expected

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})  # LangServe has no WebSockets
        body = await read(receive)
        if body is None:
            return await JSONResponse({"refused": "the body is too large, or never ended"}, 413)(scope, receive, send)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        # As in the request line: scope["path"] is decoded, and the signature is over what was sent.
        target = scope["method"], scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
        try:
            identity = verify(*target, headers, body, **self.expected)
        except Refused as why:
            return await JSONResponse({"refused": str(why)}, 401)(scope, receive, send)
        scope = {**scope, "state": {**scope.get("state", {}), "identity": identity}}
        await self.app(scope, again(body, receive), send)


async def read(receive):
    """The whole body, or None where it has no end within MAX_BODY."""
    body, more = bytearray(), True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if message["type"] == "http.disconnect" or len(body) > MAX_BODY:
            return None
    return bytes(body)


def again(body, receive):
    """A `receive` that gives this body once more, then what comes after it."""
    held = [{"type": "http.request", "body": body}]

    async def next_message():
        return held.pop() if held else await receive()

    return next_message


def identified(config, request):
    """LangServe's per-request hook: runs last, so it overrides what the client sent as `configurable`."""
    identity = request.state.identity
    config["configurable"] = {
        **config.get("configurable", {}),
        "user_id": identity.get("subject"),
        "claims": identity.get("claims", {}),
    }
    return config


async def answer(questions, config: RunnableConfig):
    """Stands for your chain: greets word by word, so that streaming can be seen without a model."""
    user = config["configurable"]["user_id"]
    async for question in questions:
        for word in ("Hello ", user or "stranger", ", you said: ", question):
            yield word


app = FastAPI(openapi_url=None)  # no schema and no /docs for whoever gets here
add_routes(
    app,
    RunnableGenerator(answer).with_types(input_type=str, output_type=str),
    path="/agents/support",
    per_req_config_modifier=identified,
    enabled_endpoints=["invoke", "stream"],  # no playground, no batch, no /c/HASH/… with a config in the URL
)
# Added last, so the outermost: nothing answers before it.
app.add_middleware(Verified, key_id="a1", key=os.environb[b"DOORWARD_ASSERTION_KEY"], audience="langserve")
