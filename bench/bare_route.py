"""`python -m bench.bare_route PORT`: the least that quart-trio on hypercorn can do, to compare with."""

import sys
from functools import partial

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart_trio import QuartTrio

app = QuartTrio(__name__)


@app.post("/")
async def bare() -> tuple[dict[str, str], int]:
    return {}, 202


if __name__ == "__main__":
    config = Config()
    config.bind = [f"127.0.0.1:{sys.argv[1]}"]
    trio.run(partial(serve, app, config))
