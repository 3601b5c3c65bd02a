"""API.md on a whole exchange: HTTP, WebSocket and gRPC, as a bot meets them."""

import grpc
import pytest

from exchange.v1 import market_data_pb2 as md
from exchange.v1 import market_data_pb2_grpc, orders_pb2_grpc
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import types_pb2 as ty
from tests.harness.exchange import Exchange, User
from tests.integration.end_to_end.shop import (
    Socket,
    balances,
    clear,
    get,
    limit,
    market,
    open_socket,
    place,
    settled,
    until,
)


@pytest.fixture
def maker(exchange: Exchange) -> User:
    return exchange.join()


@pytest.fixture
def taker(exchange: Exchange) -> User:
    return exchange.join()


def test_the_markets_of_a_new_exchange(exchange: Exchange) -> None:
    assert get(exchange, "/api/v1/markets") == [
        {
            "symbol": symbol,
            "base": symbol[:3],
            "quote": "USD",
            "tick_size": "0.01",
            "lot_size": lot,
            "min_notional": "1",
            "maker_fee_bps": 10,
            "taker_fee_bps": 20,
            "status": "ACTIVE",
        }
        for symbol, lot in (("BTC-USD", "0.00001"), ("ETH-USD", "0.0001"))
    ]


def test_a_trade_from_the_order_to_the_money(exchange: Exchange, maker: User, taker: User) -> None:
    assert balances(exchange, maker) == {"USD": ("1000000", "0"), "BTC": ("100", "0"), "ETH": ("1000", "0")}
    resting = place(exchange, maker, limit("BUY", "50000.00", "0.5", client_order_id="bid"))
    assert (resting["status"], resting["client_order_id"], resting["symbol"]) == (
        "ACCEPTED",
        "bid",
        "BTC-USD",
    )
    assert balances(exchange, maker)["USD"] == ("975000", "25000")
    assert settled(exchange, maker, resting["order_id"])["status"] == "OPEN"
    book = until(lambda: get(exchange, "/api/v1/orderbook?symbol=BTC-USD"), lambda book: book["bids"] != [])
    assert book["bids"][0] == ["50000.00", "0.50000"]

    sold = settled(exchange, taker, place(exchange, taker, market("SELL", quantity="0.2"))["order_id"])
    assert (sold["status"], sold["filled_quantity"], sold["filled_quote"]) == ("FILLED", "0.20000", "10000")
    assert balances(exchange, taker)["USD"][0] == "1009980"  # 20 bps of 10,000 USD
    assert balances(exchange, maker)["BTC"][0] == "100.1998"  # 10 bps of 0.2 BTC
    assert settled(exchange, maker, resting["order_id"])["status"] == "PARTIALLY_FILLED"

    [fill] = get(exchange, "/api/v1/fills", maker)["fills"]
    assert (fill["side"], fill["price"], fill["quantity"]) == ("BUY", "50000.00", "0.20000")
    assert (fill["fee"], fill["fee_asset"], fill["liquidity"]) == ("0.0002", "BTC", "MAKER")
    [other] = get(exchange, "/api/v1/fills?symbol=BTC-USD", taker)["fills"]
    assert (other["trade_id"], other["liquidity"], other["fee"]) == (fill["trade_id"], "TAKER", "20")
    trade = until(
        lambda: get(exchange, "/api/v1/trades?symbol=BTC-USD&limit=1"), lambda trades: trades != []
    )[0]
    assert (trade["price"], trade["quantity"], trade["taker_side"]) == ("50000.00", "0.20000", "SELL")
    assert get(exchange, "/api/v1/ticker?symbol=BTC-USD")["last"] == "50000.00"
    candle = get(exchange, "/api/v1/klines?symbol=BTC-USD&interval=1m")[-1]
    assert (candle["close"], candle["trades"]) == ("50000.00", 1)
    clear(exchange, maker)
    assert balances(exchange, maker)["USD"] == ("990000", "0")


def test_the_same_order_again_is_the_same_order(exchange: Exchange, maker: User) -> None:
    order = limit("BUY", "40000", "0.01", client_order_id="again")
    first = place(exchange, maker, order)
    assert place(exchange, maker, order, 200) == first
    refused = place(exchange, maker, order | {"price": "40001"}, 409)
    assert refused["error"]["code"] == "DUPLICATE_CLIENT_ORDER_ID"
    assert settled(exchange, maker, first["order_id"])["status"] == "OPEN"
    assert place(exchange, maker, order, 200) == first
    [found] = get(exchange, "/api/v1/orders?client_order_id=again", maker)["orders"]
    assert found["order_id"] == first["order_id"]
    clear(exchange, maker)


def test_a_batch_answers_each_order_in_its_place(exchange: Exchange, maker: User) -> None:
    orders = [limit("BUY", f"{30000 + n}", "0.01") for n in range(20)]
    orders[3]["price"] = "1.001"
    orders[5]["symbol"] = "DOGE-USD"
    orders[7] = limit("BUY", "30000", "1000")
    response = exchange.http.post("/api/v1/orders/batch", json=orders, headers=maker.headers)
    assert response.status_code == 202
    results = response.json()["results"]
    codes = [result.get("error", {}).get("code") for result in results]
    expected = {3: "INVALID_PRICE", 5: "UNKNOWN_SYMBOL", 7: "INSUFFICIENT_FUNDS"}
    assert codes == [expected.get(index) for index in range(20)]
    sequences = [result["sequence"] for result in results if "error" not in result]
    assert sequences == list(range(sequences[0], sequences[0] + 17))
    page = get(exchange, "/api/v1/orders?status=OPEN&limit=10", maker)
    rest = get(exchange, f"/api/v1/orders?status=OPEN&limit=10&cursor={page['cursor']}", maker)
    assert len({order["order_id"] for order in page["orders"] + rest["orders"]}) == 17
    assert rest["cursor"] is None
    canceled = exchange.http.delete("/api/v1/orders?symbol=BTC-USD", headers=maker.headers)
    assert (canceled.status_code, canceled.json()) == (202, {"canceling": 17})
    clear(exchange, maker)


def test_times_in_force_post_only_and_self_trades(exchange: Exchange, maker: User, taker: User) -> None:
    ask = place(exchange, maker, limit("SELL", "60000", "0.1"))
    settled(exchange, maker, ask["order_id"])

    def end_of(user: User, order: dict[str, object]) -> tuple[str, str]:
        ended = settled(exchange, user, place(exchange, user, order)["order_id"])
        return ended["status"], ended["filled_quantity"]

    assert end_of(taker, limit("BUY", "60000", "0.2", time_in_force="FOK")) == ("EXPIRED", "0.00000")
    assert end_of(taker, limit("BUY", "60000", "0.05", post_only=True)) == ("REJECTED", "0.00000")
    assert end_of(taker, limit("BUY", "59999", "0.05", time_in_force="IOC")) == ("EXPIRED", "0.00000")
    assert end_of(maker, limit("BUY", "60000", "0.05")) == ("CANCELED", "0.00000")
    assert end_of(taker, limit("BUY", "60000", "0.04", time_in_force="IOC")) == ("FILLED", "0.04000")
    assert end_of(taker, market("BUY", quote_quantity="1200")) == ("FILLED", "0.02000")
    assert end_of(taker, market("BUY", quantity="0.2")) == ("EXPIRED", "0.04000")
    assert settled(exchange, maker, ask["order_id"])["status"] == "FILLED"
    assert balances(exchange, taker)["USD"][1] == "0"


def test_orders_are_their_owners_alone(exchange: Exchange, maker: User, taker: User) -> None:
    order = place(exchange, maker, limit("BUY", "20000", "0.01"))
    path = f"/api/v1/orders/{order['order_id']}"
    assert get(exchange, path, taker, 404)["error"]["code"] == "ORDER_NOT_FOUND"
    assert exchange.http.delete(path, headers=taker.headers).status_code == 404
    assert get(exchange, "/api/v1/orders", taker) == {"orders": [], "cursor": None}
    assert get(exchange, path, None, 401)["error"]["code"] == "UNAUTHENTICATED"
    settled(exchange, maker, order["order_id"])
    gone = exchange.http.delete(path, headers=maker.headers)
    assert (gone.status_code, gone.json()["order_id"]) == (202, order["order_id"])
    until(lambda: get(exchange, path, maker)["status"], lambda status: status == "CANCELED")
    again = exchange.http.delete(path, headers=maker.headers)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "ORDER_NOT_LIVE")


def test_recharge_fills_up_what_is_missing(exchange: Exchange, maker: User, taker: User) -> None:
    place(exchange, maker, limit("BUY", "50000", "1"))
    sold = place(exchange, taker, market("SELL", quantity="1"))
    settled(exchange, taker, sold["order_id"])
    answer = exchange.http.post("/api/v1/test/recharge", headers=taker.headers)
    assert answer.status_code == 200
    have = {account["asset"]: account["available"] for account in answer.json()["balances"]}
    assert (have["BTC"], float(have["USD"]) > 1_000_000) == ("100", True)


def test_the_websocket_tells_the_public_and_the_owner(exchange: Exchange, maker: User, taker: User) -> None:
    with open_socket(exchange) as mine, open_socket(exchange) as theirs:
        owner, stranger = Socket(mine), Socket(theirs)
        for socket, user in ((owner, maker), (stranger, taker)):
            socket.say(op="auth", token=user.token)
            socket.say(op="subscribe", channels=["orders", "fills", "balances"], id=1)
            socket.wait_channel("balances", "snapshot")
        stranger.say(op="subscribe", channels=["depth:ETH-USD", "trades:ETH-USD", "klines:ETH-USD:1m"], id=2)
        depth = stranger.wait_channel("depth:ETH-USD", "snapshot")
        order = limit("SELL", "3000", "2", symbol="ETH-USD", client_order_id="ws")
        placed = place(exchange, maker, order)
        update = owner.wait_channel("orders")["data"]
        assert (update["order_id"], update["client_order_id"]) == (placed["order_id"], "ws")
        assert (update["status"], update["sequence"]) == ("OPEN", placed["sequence"])
        change = stranger.wait_channel("depth:ETH-USD")
        assert change["previous"] == depth["sequence"]
        assert change["data"] == {"bids": [], "asks": [["3000.00", "2.0000"]]}

        bought = place(exchange, taker, market("BUY", symbol="ETH-USD", quote_quantity="3000"))
        fill = owner.wait_channel("fills")["data"]
        assert (fill["order_id"], fill["quantity"], fill["liquidity"]) == (
            placed["order_id"],
            "1.0000",
            "MAKER",
        )
        assert stranger.wait_channel("trades:ETH-USD")["data"][-1]["quantity"] == "1.0000"
        own = stranger.wait(
            lambda one: one.get("channel") == "orders" and one["data"]["order_id"] == bought["order_id"]
        )
        assert own["data"]["status"] == "FILLED"
        owner.say(op="ping")
        owner.wait(lambda one: one.get("op") == "pong")
        private = [one for one in stranger.seen if one.get("channel") in ("orders", "fills")]
        assert placed["order_id"] not in str([one["data"] for one in private])
    clear(exchange, maker)


def test_grpc_has_the_same_identity_and_the_same_market(exchange: Exchange, maker: User) -> None:
    bearer = (("authorization", f"Bearer {maker.token}"),)
    order = pb.NewOrder(
        symbol="BTC-USD",
        side=ty.SIDE_BUY,
        type=ty.ORDER_TYPE_LIMIT,
        price_ticks=1_000_000,
        qty_lots=1_000,
        client_order_id="grpc",
    )
    with grpc.insecure_channel(exchange.orders_address) as channel:
        orders = orders_pb2_grpc.OrdersStub(channel)
        accepted = orders.Submit(pb.SubmitRequest(order=order), metadata=bearer).accepted
        repeated = orders.Submit(pb.SubmitRequest(order=order), metadata=bearer).accepted
        assert (repeated.order_id, repeated.repeated) == (accepted.order_id, True)
        requests = (pb.SubmitStreamRequest(orders=[pb.NewOrder(symbol="?")] * 2) for _ in range(3))
        answers = list(orders.SubmitStream(requests, metadata=bearer))
        assert [len(answer.results) for answer in answers] == [2, 2, 2]
        with pytest.raises(grpc.RpcError) as nobody:
            orders.ListOrders(pb.ListOrdersRequest(), metadata=(("x-user-id", maker.user_id),))
        assert nobody.value.code() is grpc.StatusCode.UNAUTHENTICATED
    settled(exchange, maker, str(accepted.order_id))
    with grpc.insecure_channel(exchange.market_data_address) as channel:
        market_data = market_data_pb2_grpc.MarketDataStub(channel)
        request = md.GetBookRequest(symbol="BTC-USD", depth=5)
        book = until(lambda: market_data.GetBook(request), lambda book: len(book.bids) == 1)
        assert (book.bids[0].price_ticks, book.bids[0].qty_lots) == (1_000_000, 1_000)
    clear(exchange, maker)
