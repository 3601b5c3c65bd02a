"""What the documents say is what a running exchange does.

Schemathesis makes requests that fit the OpenAPI document and requests that do not, and compares every answer
with it: status, headers, content type, schema. `schemathesis.toml` says what a schema cannot. Every kind of
message of the WebSocket is caused, and compared with the AsyncAPI document.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
from websockets.sync.client import ClientConnection, connect

from common.socket_messages import CHANNELS
from tests.harness.exchange import Exchange, User

MOST_S = 12
CONFIG = Path(__file__).with_name("schemathesis.toml")


def test_every_answer_is_as_documented(exchange: Exchange, tmp_path: Path, seed: int) -> None:
    options = [
        f"--config-file={CONFIG}",
        "run",
        f"{exchange.base_url}/api/v1/openapi.json",
        f"--seed={seed}",
        f"--max-time={MOST_S}",
        "--phases=examples,coverage,fuzzing",
        "--max-examples=20",
        "--generation-database=none",
        "--warnings=off",
        "--no-color",
        f"--header=Authorization: Bearer {exchange.join().token}",
    ]
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "schemathesis.cli", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-4_000:]


class Frames:
    """Reads a WebSocket, comparing each message with its schema, until every kind has been seen."""

    def __init__(self, document: dict[str, Any]) -> None:
        told = document["operations"]["tell"]["messages"]
        self.unseen = {reference["$ref"].rpartition("/")[2] for reference in told}
        self._schemas = {
            name: jsonschema_rs.validator_for(message["payload"] | {"components": document["components"]})
            for name, message in document["components"]["messages"].items()
        }

    def say(self, socket: ClientConnection, **message: object) -> None:
        name = str(message["op"])
        self._schemas[name].validate(message)
        socket.send(json.dumps(message))

    def hear(self, socket: ClientConnection) -> str:
        """The name of the next message."""
        frame = json.loads(socket.recv(15))
        kind = frame["op"] if "op" in frame else f"{frame['channel'].partition(':')[0]}_{frame['type']}"
        name = "failed" if kind == "error" else kind
        self._schemas[name].validate(frame)
        self.unseen.discard(name)
        return str(name)

    def hear_until(self, socket: ClientConnection, name: str) -> None:
        while self.hear(socket) != name:
            pass


def place(exchange: Exchange, user: User, side: str, price: str, **more: object) -> None:
    order = {"symbol": "BTC-USD", "side": side, "type": "LIMIT", "price": price, "quantity": "0.01"} | more
    assert exchange.http.post("/api/v1/orders", json=order, headers=user.headers).status_code == 202


def test_every_message_is_as_documented(exchange: Exchange) -> None:
    frames = Frames(exchange.http.get("/api/v1/asyncapi.json").json())
    maker, taker = exchange.join(), exchange.join()
    place(exchange, maker, "BUY", "900", client_order_id="rests")
    with connect(exchange.ws_url, proxy=None) as socket:
        frames.say(socket, op="ping", id=1)
        frames.hear_until(socket, "pong")
        frames.say(socket, op="auth", token="nobody's")
        frames.hear_until(socket, "failed")
        frames.say(socket, op="auth", token=maker.token, id="me")
        frames.hear_until(socket, "authenticated")
        frames.say(socket, op="subscribe", channels=[channel.example for channel in CHANNELS])
        frames.hear_until(socket, "subscribed")
        place(exchange, maker, "SELL", "1000")
        place(exchange, taker, "BUY", "1000")
        while frames.unseen - {"unsubscribed"}:
            frames.hear(socket)
        frames.say(socket, op="unsubscribe", channels=["trades:BTC-USD"])
        frames.hear_until(socket, "unsubscribed")
    assert not frames.unseen
