"""One gRPC stream for each of ten bots, some messages of each under way: orders accepted a second."""

import random
import time

from bench.bots import BOTS, GOALS, Metadata, drive, register_echo
from bench.flow import MARKETS, Backlog, price_ticks, shares, tokens_by_side
from bench.http import connected, join
from bench.local import Local
from bench.table import Figure
from common.rpc import serve_grpc
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import types_pb2 as ty

_LOTS = {"BTC-USD": 10, "ETH-USD": 10}  # 0.0001 BTC and 0.001 ETH.
_MESSAGES = 64  # A bot's, over and over.


async def streams(local: Local, backlog: Backlog, seconds: float, orders_each: int) -> list[Figure]:
    """Messages of `orders_each` orders, as fast as they are accepted."""
    await backlog.below(0)
    async with connected(local.host, local.port) as connection:
        tokens = [await join(connection) for _ in range(BOTS)]
    before = local.cpu_seconds()
    accepted = 0

    def answered(answer: pb.SubmitStreamResponse) -> None:
        nonlocal accepted
        accepted += sum(result.HasField("accepted") for result in answer.results)

    bots = [
        (_metadata(token), _messages(random.Random(seed), orders_each, buys=buys))
        for seed, (token, buys) in enumerate(tokens_by_side(tokens))
    ]
    begin_s = time.perf_counter()
    await drive(f"{local.host}:{local.orders_port}", bots, begin_s + seconds, answered)
    took_s = time.perf_counter() - begin_s
    what = "an order a message" if orders_each == 1 else f"{orders_each} orders a message"
    return [
        Figure(
            f"{BOTS} bots, a gRPC stream each, {what}: accepted",
            accepted / took_s,
            "/s",
            GOALS.get(orders_each, ""),
            shares(local.cpu_since(before), accepted),
        )
    ]


def _metadata(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


def _messages(draw: random.Random, orders_each: int, *, buys: bool) -> list[pb.SubmitStreamRequest]:
    side = ty.SIDE_BUY if buys else ty.SIDE_SELL
    messages = []
    for number in range(_MESSAGES):
        symbol = list(MARKETS)[number % len(MARKETS)]
        made = [
            pb.NewOrder(
                symbol=symbol,
                side=side,
                type=ty.ORDER_TYPE_LIMIT,
                price_ticks=price_ticks(draw, symbol, buys=buys),
                qty_lots=_LOTS[symbol],
            )
            for _ in range(orders_each)
        ]
        messages.append(pb.SubmitStreamRequest(orders=made))
    return messages


async def echo_limit(seconds: float) -> Figure:
    """Ten bare grpc.aio streams of the same messages and answers, in one process with their client."""
    echoed = 0

    def answered(_: pb.SubmitStreamResponse) -> None:
        nonlocal echoed
        echoed += 1

    bots: list[tuple[Metadata, list[pb.SubmitStreamRequest]]] = [
        ((), _messages(random.Random(seed), 1, buys=True)) for seed in range(BOTS)
    ]
    async with serve_grpc(register_echo, "127.0.0.1:0", service_names=[], drain_s=1.0) as port:
        begin_s = time.perf_counter()
        await drive(f"127.0.0.1:{port}", bots, begin_s + seconds, answered)
        rate = echoed / (time.perf_counter() - begin_s)
    return Figure(f"limit: a bare gRPC echo, {BOTS} streams, a message each way", rate, "/s")
