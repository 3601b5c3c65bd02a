"""What is private reaches its owner alone: this would catch an exchange that sends everybody everything."""

from collections.abc import Iterator

import grpc

from exchange.v1 import orders_pb2 as pb
from exchange.v1 import orders_pb2_grpc
from exchange.v1 import types_pb2 as ty
from tests.harness.exchange import Exchange, User
from tests.integration.end_to_end.shop import (
    Json,
    Socket,
    clear,
    get,
    limit,
    market,
    open_socket,
    place,
    until,
)

PRIVATE = ("orders", "fills", "balances")


def listening(connection: object, user: User) -> Socket:
    heard = Socket(connection)  # type: ignore[arg-type]
    heard.say(op="auth", token=user.token)
    heard.say(op="subscribe", channels=list(PRIVATE))
    heard.wait_channel("balances", "snapshot")
    return heard


def updates(heard: Socket, channel: str) -> list[Json]:
    return [one["data"] for one in heard.seen if one.get("channel") == channel and one["type"] == "update"]


def newest_balances(heard: Socket) -> Json:
    heard.say(op="ping")
    heard.wait(lambda one: one.get("op") == "pong")
    told = [one["data"] for one in heard.seen if one.get("channel") == "balances"]
    accounts = [*told[0], *told[1:]]  # The snapshot is a list.
    return {account["asset"]: account for account in accounts}


def hear_own_end(heard: Socket, order_id: str) -> None:
    heard.wait(
        lambda one: (
            one.get("channel") == "orders"
            and one["type"] == "update"
            and one["data"]["order_id"] == order_id
            and one["data"]["status"] in ("FILLED", "CANCELED", "EXPIRED")
        )
    )


def test_two_users_hear_of_themselves_alone(exchange: Exchange) -> None:
    """Both trade in both markets, with each other and with a third; then each hears the end of their own."""
    alice, bob, carol = exchange.join(), exchange.join(), exchange.join()
    with open_socket(exchange) as first, open_socket(exchange) as second:
        heard = [(alice, listening(first, alice)), (bob, listening(second, bob))]
        own: dict[str, set[str]] = {user.user_id: set() for user in (alice, bob, carol)}

        def order(user: User, of: Json) -> str:
            order_id = str(place(exchange, user, of)["order_id"])
            own[user.user_id].add(order_id)
            return order_id

        for number in range(5):
            order(alice, limit("SELL", f"{3000 + number}", "0.1", symbol="ETH-USD"))
            order(bob, limit("BUY", f"{2000 + number}", "0.1", symbol="ETH-USD"))
        order(carol, market("BUY", symbol="ETH-USD", quote_quantity="500"))  # Of Alice.
        order(carol, market("SELL", symbol="ETH-USD", quantity="0.15"))  # To Bob.
        order(bob, limit("SELL", "50000", "0.01"))
        order(alice, limit("BUY", "50000", "0.01", time_in_force="IOC"))  # Of Bob.
        # In each market an order of each that nobody can fill comes last: all before it has been told then.
        for user, socket in heard:
            for symbol in ("ETH-USD", "BTC-USD"):
                last = limit("BUY", "1000", "0.1", symbol=symbol, time_in_force="IOC")
                hear_own_end(socket, order(user, last))
        for user, socket in heard:
            assert {each["order_id"] for each in updates(socket, "orders")} == own[user.user_id]
            fills = {fill["order_id"] for fill in updates(socket, "fills")}
            assert fills
            assert fills <= own[user.user_id]
            # Balances do not say whose they are: the newest that were told are what their owner has.
            stands = {account["asset"]: account for account in get(exchange, "/api/v1/accounts", user)}
            until(lambda socket=socket: newest_balances(socket), stands.__eq__)  # type: ignore[misc]
    clear(exchange, alice, bob)


def test_two_streams_of_orders_answer_their_own(exchange: Exchange) -> None:
    users = [exchange.join(), exchange.join()]
    with grpc.insecure_channel(exchange.orders_address) as channel:
        stub = orders_pb2_grpc.OrdersStub(channel)

        def answers(number: int) -> Iterator[pb.SubmitStreamResponse]:
            requests = (pb.SubmitStreamRequest(orders=[named(number, index)]) for index in range(20))
            return stub.SubmitStream(requests, metadata=bearer(users[number]))

        heard: list[set[str]] = [set(), set()]
        for pair in zip(answers(0), answers(1), strict=True):
            for number, answer in enumerate(pair):
                heard[number] |= {result.accepted.client_order_id for result in answer.results}
        for number, user in enumerate(users):
            expected = {f"{number}-{index}" for index in range(20)}
            assert heard[number] == expected
            listed = stub.ListOrders(pb.ListOrdersRequest(limit=100), metadata=bearer(user)).orders
            assert {order.client_order_id for order in listed} == expected
            assert {order.user_id for order in listed} == {int(user.user_id)}
    clear(exchange, *users)


def bearer(user: User) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {user.token}"),)


def named(number: int, index: int) -> pb.NewOrder:
    return pb.NewOrder(
        symbol="BTC-USD",
        side=ty.SIDE_BUY,
        type=ty.ORDER_TYPE_LIMIT,
        price_ticks=100_000,
        qty_lots=1_000,
        client_order_id=f"{number}-{index}",
    )
