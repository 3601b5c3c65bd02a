"""What the end-to-end tests do again and again: place, wait, and look at the money."""

import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from websockets.sync.client import ClientConnection, connect

from tests.harness.exchange import Exchange, User

SETTLE_S = 15.0
Json = dict[str, Any]
T = TypeVar("T")


def limit(side: str, price: str, quantity: str, **more: object) -> Json:
    order = {"symbol": "BTC-USD", "side": side, "type": "LIMIT", "price": price, "quantity": quantity}
    return order | more


def market(side: str, **more: object) -> Json:
    return {"symbol": "BTC-USD", "side": side, "type": "MARKET"} | more


def place(exchange: Exchange, user: User, order: Mapping[str, object], status: int = 202) -> Json:
    response = exchange.http.post("/api/v1/orders", json=order, headers=user.headers)
    assert response.status_code == status, response.text
    answer: Json = response.json()
    return answer


def get(exchange: Exchange, path: str, user: User | None = None, status: int = 200) -> Any:
    response = exchange.http.get(path, headers=user.headers if user else {})
    assert response.status_code == status, response.text
    return response.json()


def until(look: Callable[[], T], good: Callable[[T], bool], within_s: float = SETTLE_S) -> T:
    """Look until it is good; fails with the last look."""
    deadline_s = time.monotonic() + within_s
    while not good(last := look()):
        assert time.monotonic() < deadline_s, f"still {last!r}"
        time.sleep(0.01)
    return last


def settled(exchange: Exchange, user: User, order_id: str) -> Json:
    """The order, once the watermark has passed it."""
    return until(
        lambda: get(exchange, f"/api/v1/orders/{order_id}", user), lambda order: order["status"] != "ACCEPTED"
    )


def balances(exchange: Exchange, user: User) -> dict[str, tuple[str, str]]:
    return {
        account["asset"]: (account["available"], account["held"])
        for account in get(exchange, "/api/v1/accounts", user)
    }


def clear(exchange: Exchange, *users: User) -> None:
    """Cancel everything and wait until it has ended."""
    for user in users:
        exchange.http.delete("/api/v1/orders", headers=user.headers)
        until(partial(get, exchange, "/api/v1/orders?status=OPEN", user), lambda page: page["orders"] == [])


class Socket:
    """A WebSocket client that answers like a person: say, then wait for what fits."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.seen: list[Json] = []

    def say(self, **message: object) -> None:
        self._connection.send(json.dumps(message))

    def wait(self, good: Callable[[Json], bool], within_s: float = SETTLE_S) -> Json:
        deadline_s = time.monotonic() + within_s
        while True:
            message: Json = json.loads(self._connection.recv(max(0.01, deadline_s - time.monotonic())))
            self.seen.append(message)
            if good(message):
                return message

    def wait_channel(self, channel: str, kind: str = "update") -> Json:
        return self.wait(lambda one: one.get("channel") == channel and one["type"] == kind)


def open_socket(exchange: Exchange) -> ClientConnection:
    return connect(exchange.ws_url, proxy=None)
