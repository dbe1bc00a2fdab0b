"""FastAPI behind Doorward: the middleware, and an application that says who is talking.

    DOORWARD_ASSERTION_KEY=… uvicorn fastapi_middleware:app --port 3000 --no-proxy-headers

A request that the gateway did not sign is answered 401 and reaches no route; neither does such a WebSocket handshake. A body
is held here only where its digest was signed, up to `max_body`; any other streams through as it comes. What must answer
without the gateway (a health check) belongs into another application.
"""

import os

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse
from verify import Refused, verify_body, verify_head


class Doorward:
    """ASGI middleware, the outermost: after it, `request.state.identity` is what verify_head says."""

    def __init__(self, app, *, max_body=1024 * 1024, **expected):
        self.app, self.max_body, self.expected = app, max_body, expected  # max_body: the gateway's server.body_hold

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        # As in the request line; scope["path"] is decoded. A WebSocket's handshake is a GET.
        target = scope.get("method", "GET"), scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
        try:
            identity = verify_head(*target, headers, **self.expected)
            if identity["body_digest"] is not None:
                body = await self.read(receive) if scope["type"] == "http" else b""
                if len(body) > self.max_body:
                    return await JSONResponse({"refused": "the body is too large"}, 413)(scope, receive, send)
                verify_body(identity, body)
                receive = replay(body, receive) if scope["type"] == "http" else receive
        except Refused as why:
            if scope["type"] == "websocket":
                return await send({"type": "websocket.close", "code": 1008})  # before it was accepted: a 403
            return await JSONResponse({"refused": str(why)}, 401)(scope, receive, send)
        await self.app({**scope, "state": {**scope.get("state", {}), "identity": identity}}, receive, send)

    async def read(self, receive):
        """The body, or its beginning where it is longer than it may be."""
        body, more = bytearray(), True
        while more and len(body) <= self.max_body:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused("the body never ended")
            body += message.get("body", b"")
            more = message.get("more_body", False)
        return bytes(body)


def replay(body, receive):
    """A `receive` that gives this body first."""
    held = [{"type": "http.request", "body": body}]

    async def again():
        return held.pop() if held else await receive()

    return again


expected = {"key_id": "a1", "key": os.environb[b"DOORWARD_ASSERTION_KEY"], "audience": "agent", "mapped": ["X-User-Email"]}
app = FastAPI(openapi_url=None)
app.add_middleware(Doorward, **expected)


@app.api_route("/{path:path}", methods=["GET", "POST"])
async def whoami(request: Request):
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    who = request.state.identity
    return {**{name: who.get(name) for name in ["level", "tenant", "subject", "claims"]}, "bytes": size}
