"""The handles that other tests act with: each daemon can be killed, frozen and brought back."""

import pytest

from daemons.local.fleet import MODULES
from tests.harness.exchange import Exchange, User


@pytest.fixture(scope="module")
def user(exchange: Exchange) -> User:
    return exchange.join()


@pytest.mark.parametrize("name", MODULES)
def test_a_daemon_is_killed_and_comes_back(exchange: Exchange, user: User, name: str) -> None:
    exchange.restart(name)
    order = {"symbol": "BTC-USD", "side": "BUY", "type": "LIMIT", "price": "10.00", "quantity": "1"}
    placed = exchange.http.post("/api/v1/orders", json=order, headers=user.headers)
    assert placed.status_code == 202, placed.text


def test_a_frozen_daemon_is_left_out_and_thaws(exchange: Exchange, user: User) -> None:
    exchange.freeze("market-data")
    exchange.wait_ready()
    exchange.thaw("market-data")
    exchange.wait_ready()
    assert exchange.http.get("/api/v1/orderbook?symbol=BTC-USD").status_code == 200


@pytest.mark.parametrize("name", MODULES)
def test_each_daemon_tells_what_it_counts(exchange: Exchange, name: str) -> None:
    counted = exchange.metrics(name)
    assert counted["process_start_time_seconds"] > 0
    assert ("exchange_gateway_connections" in counted) == (name == "gateway")
