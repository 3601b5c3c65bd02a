"""`python -m bench.bare_route PORT [quart | asgi]`: the least that quart-trio, or a plain ASGI function, on
hypercorn and Trio can do, to compare with. Both read the request's body and answer 202 with {}.
"""

import sys
from functools import partial
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import request
from quart_trio import QuartTrio

quart_app = QuartTrio(__name__)


@quart_app.post("/")
async def bare() -> tuple[dict[str, str], int]:
    await request.get_data()
    return {}, 202


async def asgi_app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return await _lifespan(receive, send)
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}", "more_body": False})
    return None


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


APPS: dict[str, Any] = {"asgi": asgi_app, "quart": quart_app}

if __name__ == "__main__":
    config = Config()
    config.bind = [f"127.0.0.1:{sys.argv[1]}"]
    trio.run(partial(serve, APPS[(*sys.argv[2:], "quart")[0]], config))
