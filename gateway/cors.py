"""Pages of other origins: none may read the API, but for those that a setting names.

No cookie and no other ambient credential is ever taken, so what such a page sends is what it knows itself.
Without the setting this is not even in the way: preflights are answered 405 and no answer names an origin.
"""

from collections.abc import Iterable

from gateway.asgi import Application, Message, Receive, Scope, Send
from gateway.calls import find_header

PATHS = "/api/"
KEEP_S = 600  # How long a browser may keep what a preflight was told.
_PREFLIGHT = (
    (b"access-control-allow-methods", b"GET, POST, DELETE"),
    (
        b"access-control-allow-headers",
        b"Authorization, Content-Type, Idempotency-Key, X-Request-Id, X-Api-Key, X-Timestamp, X-Signature",
    ),
    (b"access-control-max-age", b"%d" % KEEP_S),
)
_EXPOSED = (
    b"access-control-expose-headers",
    b"X-Request-Id, Retry-After, Idempotent-Replay,"
    b" RateLimit-Limit, RateLimit-Used, RateLimit-Remaining, RateLimit-Reset",
)


class Cors:
    """The application behind it, for pages of these origins as well."""

    def __init__(self, app: Application, origins: Iterable[str]) -> None:
        self._app = app
        self._origins = frozenset(origin.encode("ascii") for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = find_header(scope["headers"], b"origin")
        if scope["type"] != "http" or origin not in self._origins or not scope["path"].startswith(PATHS):
            return await self._app(scope, receive, send)
        allowed = ((b"access-control-allow-origin", origin), (b"vary", b"origin"))
        if scope["method"] == "OPTIONS" and find_header(scope["headers"], b"access-control-request-method"):
            return await _answer_preflight(send, [*allowed, *_PREFLIGHT])

        async def allowing(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *allowed, _EXPOSED]
            await send(message)

        return await self._app(scope, receive, allowing)


async def _answer_preflight(send: Send, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
