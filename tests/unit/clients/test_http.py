"""The client's HTTP against a server that says what the test wants, on both event loops."""

import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from exchange_client import (
    Exchange,
    HmacKey,
    InsufficientFunds,
    LimitOrder,
    NoAnswer,
    NotSent,
    Patience,
    ProtocolError,
    Token,
    Unauthenticated,
    Unavailable,
)
from tests.unit.clients.scripted import DROP, answer, refused, scripted_http

pytestmark = pytest.mark.anyio

QUICK = Patience(deadline_s=5, attempt_s=2, first_pause_s=0.01, longest_pause_s=0.02)
SINGLE = Patience(deadline_s=2, attempt_s=2, first_pause_s=5, longest_pause_s=5)
ORDER = LimitOrder(symbol="BTC-USD", side="BUY", price="60000", quantity="0.001")
ACCEPTED = {
    "order_id": "1", "client_order_id": ORDER.client_order_id, "symbol": "BTC-USD", "sequence": 7,
    "status": "ACCEPTED", "created_at": "2026-01-02T03:04:05.000006Z",
}  # fmt: skip


async def test_the_same_order_is_sent_until_there_is_an_answer() -> None:
    script = (DROP, refused(503, "BUSY", Retry_After="0"), refused(429, "X"), answer(200, ACCEPTED))
    async with scripted_http(*script) as server, Exchange(server.url, Token("t"), patience=QUICK) as exchange:
        accepted = await exchange.place(ORDER)
        assert (accepted.order_id, accepted.repeated) == ("1", True)
        assert len({request.body for request in server.requests}) == 1
        assert len(server.requests) == 4
        assert server.requests[0].headers["authorization"] == "bearer t"


async def test_what_is_done_once_is_not_sent_twice() -> None:
    async with scripted_http(DROP) as server, Exchange(server.url, patience=QUICK) as exchange:
        with pytest.raises(NoAnswer):
            await exchange.join()
        assert len(server.requests) == 1


async def test_deletes_carry_one_key_over_all_attempts() -> None:
    script = (DROP, answer(202, {"canceling": 3}), answer(202, {"canceling": 0}))
    async with scripted_http(*script) as server, Exchange(server.url, Token("t"), patience=QUICK) as exchange:
        assert await exchange.cancel_all("BTC-USD") == 3
        assert await exchange.cancel_all() == 0
    first, again, other = [request.headers["idempotency-key"] for request in server.requests]
    assert first == again != other
    assert [request.target.partition("?")[2] for request in server.requests] == ["symbol=BTC-USD"] * 2 + [""]


async def test_nobody_there_is_known_not_to_have_done_anything() -> None:
    async with scripted_http() as server:
        pass
    async with Exchange(server.url, Token("t"), patience=SINGLE) as exchange:
        with pytest.raises(NotSent):
            await exchange.place(ORDER)


async def test_what_is_no_answer_of_the_exchange() -> None:
    page = b"HTTP/1.1 502 Bad\r\nContent-Length: 6\r\n\r\n<html>"
    strange = answer(200, {"not": "markets"})
    async with scripted_http(page, strange) as server, Exchange(server.url, patience=QUICK) as exchange:
        with pytest.raises(ProtocolError):
            await exchange.markets()
    async with scripted_http(page) as server, Exchange(server.url, patience=SINGLE) as exchange:
        with pytest.raises(Unavailable) as raised:
            await exchange.markets()
        assert raised.value.status == 502


async def test_a_refusal_carries_all_that_was_said() -> None:
    said = refused(422, "INSUFFICIENT_FUNDS", X_Request_Id="r-1")
    async with scripted_http(said) as server, Exchange(server.url, Token("secret-token")) as exchange:
        with pytest.raises(InsufficientFunds) as raised:
            await exchange.place(ORDER)
    assert (raised.value.status, raised.value.request_id) == (422, "r-1")
    assert "secret-token" not in repr(raised.value)


async def test_pages_are_followed_to_the_last() -> None:
    fill = {
        "order_id": "1", "symbol": "X", "side": "BUY", "price": "1", "quantity": "2", "fee": "0.1",
        "fee_asset": "B", "liquidity": "MAKER", "time": "2026-01-02T03:04:05.000006Z",
    }  # fmt: skip
    pages = (
        answer(200, {"fills": [fill | {"trade_id": "2"}], "cursor": "next"}),
        answer(200, {"fills": [fill | {"trade_id": "1"}], "cursor": None}),
    )
    async with scripted_http(*pages) as server, Exchange(server.url, Token("t")) as exchange:
        fills = [fill async for fill in exchange.fills(symbol="X")]
    assert [(fill.trade_id, fill.price) for fill in fills] == [("2", Decimal(1)), ("1", Decimal(1))]
    assert [request.target for request in server.requests] == [
        "/api/v1/fills?symbol=X&limit=500",
        "/api/v1/fills?symbol=X&limit=500&cursor=next",
    ]


def time_answer(ahead: timedelta) -> bytes:
    return answer(200, {"time": (datetime.now(UTC) + ahead).isoformat()})


async def test_a_signature_follows_the_exchanges_clock() -> None:
    ahead = timedelta(hours=1)
    async with scripted_http(answer(200, []), answer(200, [])) as server:
        server.by_path["/api/v1/time"] = lambda: time_answer(ahead)
        async with Exchange(server.url, HmacKey("key", "secret")) as exchange:
            await exchange.accounts()
            await exchange.accounts()
    asked, first, second = server.requests
    assert "x-signature" not in asked.headers  # The time is asked for once, and by nobody in particular.
    assert int(first.headers["x-timestamp"]) < int(second.headers["x-timestamp"])
    off_s = int(first.headers["x-timestamp"]) / 1000 - (datetime.now(UTC) + ahead).timestamp()
    assert abs(off_s) < 5
    message = first.headers["x-timestamp"].encode() + b"GET/api/v1/accounts"
    assert first.headers["x-signature"] == hmac.new(b"secret", message, hashlib.sha256).hexdigest()


@pytest.mark.parametrize("code", ["TIMESTAMP_OUTSIDE_WINDOW", "SIGNATURE_REPEATED"])
async def test_a_signature_that_came_at_the_wrong_moment_is_made_again(code: str) -> None:
    wrong = refused(401, code)
    async with scripted_http(wrong, answer(200, []), wrong, wrong) as server:
        server.by_path["/api/v1/time"] = lambda: time_answer(timedelta(0))
        async with Exchange(server.url, HmacKey("key", "secret")) as exchange:
            assert await exchange.accounts() == {}
            with pytest.raises(Unauthenticated):  # Once more, not for ever.
                await exchange.accounts()
    signatures = [request.headers.get("x-signature") for request in server.requests]
    assert len({*signatures} - {None}) == 4


async def test_a_clock_that_was_set_meanwhile_is_measured_again() -> None:
    late = refused(401, "UNAUTHENTICATED")
    ahead = [timedelta(0), timedelta(minutes=1), timedelta(minutes=1)]
    async with scripted_http(late, answer(200, []), late) as server:
        server.by_path["/api/v1/time"] = lambda: time_answer(ahead.pop(0))
        async with Exchange(server.url, HmacKey("key", "secret")) as exchange:
            assert await exchange.accounts() == {}
            with pytest.raises(Unauthenticated):  # The clock was right: the key is not.
                await exchange.accounts()
