"""The bots without an exchange: what they send, and how they wait for one that is away."""

import json
import random
from collections.abc import Callable
from decimal import Decimal

import anyio
import httpx
import pytest

from daemons.local.demo import Bot, Market, Wander, make, take
from tests.harness.virtual_time import Backend, virtual_time

pytestmark = pytest.mark.anyio

Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return virtual_time(request.param)


def _client(handler: Handler) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url="http://exchange", transport=httpx.MockTransport(handler))


def _market() -> Market:
    return Market("BTC-USD", Decimal("0.05"), Decimal("0.001"), Wander(65_000, 65_000))


class Recorder:
    """Accepts every order and keeps what came."""

    def __init__(self) -> None:
        self.placed: list[dict[str, str]] = []
        self.canceled: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "DELETE":
            self.canceled.append(request.url.path.rpartition("/")[2])
            return httpx.Response(409, json={})
        self.placed.append(json.loads(request.content))
        return httpx.Response(202, json={"order_id": str(len(self.placed))})


async def test_orders_keep_to_tick_and_lot_and_old_ones_are_taken_back() -> None:
    recorder = Recorder()
    async with _client(recorder) as client:
        with anyio.move_on_after(60):
            await make(Bot(client, "t"), _market(), random.Random(1))
    assert 60 < len(recorder.placed) < 240, "a few orders a second at most"
    for order in recorder.placed:
        assert Decimal(order["price"]) % Decimal("0.05") == 0
        assert Decimal(order["quantity"]) % Decimal("0.001") == 0
        assert Decimal(order["quantity"]) > 0
    assert len(recorder.placed) - len(recorder.canceled) <= 25
    assert len({order["client_order_id"] for order in recorder.placed}) == len(recorder.placed)


async def test_the_taker_crosses_with_orders_that_do_not_rest() -> None:
    recorder = Recorder()
    async with _client(recorder) as client:
        with anyio.move_on_after(120):
            await take(Bot(client, "t"), _market(), random.Random(1))
    kinds = {(order["type"], order.get("time_in_force", "")) for order in recorder.placed}
    assert kinds == {("MARKET", ""), ("LIMIT", "IOC")}


async def test_a_busy_exchange_is_waited_for_and_asked_the_same_again() -> None:
    bodies: list[bytes] = []

    def flaky(request: httpx.Request) -> httpx.Response:
        bodies.append(request.content)
        if len(bodies) == 1:
            raise httpx.ConnectError("away")
        return httpx.Response({2: 503, 3: 429}.get(len(bodies), 202), json={"order_id": "7"})

    async with _client(flaky) as client:
        began_s = anyio.current_time()
        assert await Bot(client, "t").place({"symbol": "BTC-USD"}) == "7"
        assert anyio.current_time() - began_s >= 0.2 + 0.4 + 0.8
    assert len(bodies) == 4
    assert len(set(bodies)) == 1


async def test_lack_of_funds_is_answered_with_a_recharge() -> None:
    paths: list[str] = []

    def poor(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        return httpx.Response(422, json={"error": {"code": "INSUFFICIENT_FUNDS"}})

    async with _client(poor) as client:
        assert await Bot(client, "t").place({"symbol": "BTC-USD"}) == ""
    assert paths == ["/api/v1/orders", "/api/v1/test/recharge"]


def test_the_price_wanders_and_stays_near() -> None:
    wander, dice = Wander(65_000, 65_000), random.Random(3)
    seen = []
    for _ in range(50_000):
        wander.step(dice)
        seen.append(wander.price)
    assert 65_000 * 0.8 < min(seen) < max(seen) < 65_000 * 1.2
    assert max(seen) - min(seen) > 65_000 * 0.005
