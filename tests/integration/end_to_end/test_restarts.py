"""Each daemon is killed or drained with live orders in the book; nothing is lost, nothing comes twice."""

import anyio
import pytest

from common import db
from common.audit import audit
from tests.harness.exchange import Exchange, User
from tests.integration.end_to_end.shop import Socket, clear, get, limit, open_socket, place, settled, until

DAEMONS = ("gateway", "order-service", "matching-1", "matching-2", "market-data")


def check_money(exchange: Exchange) -> None:
    async def run() -> list[object]:
        async with db.connect(exchange.settings.postgres_url, "audit") as connection:
            return [finding for finding in await audit(connection) if not finding.ok]

    assert anyio.run(run) == []


def trade_across(exchange: Exchange, interrupt: object) -> None:
    """Orders rest, something happens, and they are matched in the order in which they came."""
    assert callable(interrupt)
    first, second, taker = exchange.join(), exchange.join(), exchange.join()
    bids = [
        place(exchange, user, limit("BUY", "41000", "0.01", client_order_id="rest"))
        for user in (first, second)
    ]
    settled(exchange, second, bids[1]["order_id"])
    interrupt()
    exchange.wait_ready()
    # What was answered before is still the answer.
    assert place(exchange, first, limit("BUY", "41000", "0.01", client_order_id="rest"), 200) == bids[0]
    sell = place(exchange, taker, limit("SELL", "41000", "0.01"))
    assert settled(exchange, taker, sell["order_id"])["status"] == "FILLED"
    states = [
        settled(exchange, user, bid["order_id"])["status"]
        for user, bid in zip((first, second), bids, strict=True)
    ]
    assert states == ["FILLED", "OPEN"]
    clear(exchange, second)
    check_money(exchange)


@pytest.mark.parametrize("name", DAEMONS)
def test_kill(exchange: Exchange, name: str) -> None:
    def interrupt() -> None:
        exchange.kill(name)
        exchange.start(name)

    trade_across(exchange, interrupt)


@pytest.mark.parametrize("name", DAEMONS)
def test_drain(exchange: Exchange, name: str) -> None:
    def interrupt() -> None:
        assert exchange.terminate(name) == 0
        exchange.start(name)

    trade_across(exchange, interrupt)


def test_without_market_data_orders_go_on(exchange: Exchange) -> None:
    user = exchange.join()
    exchange.kill("market-data")
    order = place(exchange, user, limit("BUY", "42000", "0.01"))
    assert settled(exchange, user, order["order_id"])["status"] == "OPEN"
    answer = get(exchange, "/api/v1/orderbook?symbol=BTC-USD", status=503)
    assert answer["error"]["code"] == "UNAVAILABLE"
    exchange.start("market-data")
    exchange.wait_ready()
    book = until(lambda: book_of(exchange), lambda book: ["42000.00", "0.01000"] in book)
    assert ["42000.00", "0.01000"] in book
    clear(exchange, user)


def book_of(exchange: Exchange) -> list[list[str]]:
    response = exchange.http.get("/api/v1/orderbook?symbol=BTC-USD")
    bids: list[list[str]] = response.json()["bids"] if response.status_code == 200 else []
    return bids


def test_a_private_channel_after_a_restart_starts_with_the_truth(exchange: Exchange) -> None:
    user: User = exchange.join()
    order = place(exchange, user, limit("BUY", "43000", "0.01"))
    settled(exchange, user, order["order_id"])
    exchange.restart("market-data")
    with open_socket(exchange) as connection:
        socket = Socket(connection)
        socket.say(op="auth", token=user.token)
        socket.say(op="subscribe", channels=["orders"], id=1)
        [found] = socket.wait_channel("orders", "snapshot")["data"]
        assert found["order_id"] == order["order_id"]
    clear(exchange, user)
