"""Orders over gRPC streams, one for each of ten bots: `python -m bench.streams_alone`.

order-service's public service and TX1 in one process, on a PostgreSQL of its own, and the bots in another;
nothing relays or matches. The limit is an echo of the same messages by the same server.
"""

import re
import sys
import time
from functools import partial

import anyio

from bench.bots import BOTS, GOALS, drive, register_echo
from bench.table import Figure, as_markdown
from bench.tx1 import PARTITIONS, UNITS, own_exchange
from common import admin, db
from common.rpc import serve_grpc
from daemons.order_service.committer import Committer
from daemons.order_service.identity import by_daemon
from daemons.order_service.markets import Markets
from daemons.order_service.queries import Queries
from daemons.order_service.relay import Relays
from daemons.order_service.service import OrdersService, register
from daemons.order_service.settled import SettledOrders, Watermarks
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import types_pb2 as ty

WARM_UP_S, SECONDS = 1.0, 5.0
BATCH, QUEUE = 1_000, 10_000  # As the settings of order-service have them.
SERVICE = "exchange.v1.Orders"


async def streams(address: str, user_ids: list[int], seconds: float, orders: int) -> float:
    """Orders accepted in a second by a server that takes `x-user-id`, with so many orders a message."""
    accepted = 0
    start_s = time.perf_counter() + WARM_UP_S

    def answered(answer: pb.SubmitStreamResponse) -> None:
        nonlocal accepted
        if start_s <= time.perf_counter() < start_s + seconds:
            accepted += sum(one.HasField("accepted") for one in answer.results)

    bots = [
        ((("x-user-id", str(user_id)),), [_message(index, orders)]) for index, user_id in enumerate(user_ids)
    ]
    await drive(address, bots, start_s + seconds, answered)
    return accepted / seconds


def _message(index: int, orders: int) -> pb.SubmitStreamRequest:
    buys = index % 2 == 0
    order = pb.NewOrder(
        symbol="BTC-USD" if index % 4 < 2 else "ETH-USD",
        side=ty.SIDE_BUY if buys else ty.SIDE_SELL,
        type=ty.ORDER_TYPE_LIMIT,
        price_ticks=1_000_000 if buys else 90_000_000,
        qty_lots=10,
    )
    return pb.SubmitStreamRequest(orders=[order] * orders)


async def _serve(postgres_url: str) -> None:
    """Print the ports of the echo and of the service, and serve until stdin ends."""
    async with db.pool(postgres_url, name="bench stream") as pool:
        markets = Markets()
        await markets.load(pool)
        committer = Committer(
            postgres_url, markets, Relays(PARTITIONS), batch_requests=BATCH, queue_requests=QUEUE
        )
        queries = Queries(pool, markets)
        settled = SettledOrders(Watermarks(), markets, queries, most=1)
        given = by_daemon, committer, queries, markets, settled
        serve = partial(serve_grpc, address="127.0.0.1:0", service_names=[SERVICE], drain_s=1.0)
        async with anyio.create_task_group() as group:
            await group.start(committer.run)
            async with (
                serve(register_echo) as echo,
                serve(partial(register, orders=OrdersService(*given))) as service,
            ):
                print("ports", echo, service, flush=True)
                await anyio.to_thread.run_sync(sys.stdin.read)
            committer.finish()


async def _users(postgres_url: str) -> list[int]:
    async with db.connect(postgres_url, "bench stream") as connection:
        user_ids = []
        for _ in range(BOTS):
            user_id = await admin.create_user(connection, "bench")
            for asset_id in (1, 2, 3):
                atoms = UNITS * 10**8 * 10
                await admin.deposit(connection, user_id, asset_id, atoms, f"bench {user_id} {asset_id}")
            user_ids.append(user_id)
        return user_ids


async def main() -> None:
    figures = []
    async with own_exchange() as postgres_url:
        user_ids = await _users(postgres_url)
        command = [sys.executable, "-m", "bench.streams_alone", postgres_url]
        async with await anyio.open_process(command, stderr=None) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            printed = ""
            while not (said := re.search(r"ports ([0-9]+) ([0-9]+)\n", printed)):
                printed += (await process.stdout.receive()).decode()
            echo, service = said.groups()
            for orders, goal in GOALS.items():
                limit = await streams(f"127.0.0.1:{echo}", user_ids, SECONDS, orders)
                rate = await streams(f"127.0.0.1:{service}", user_ids, SECONDS, orders)
                what = f"{BOTS} gRPC streams, {orders} orders a message"
                figures.append(Figure(f"{what}: an echo", limit, "orders/s"))
                figures.append(Figure(what, rate, "orders/s", goal, f"{rate / limit:.2f} of the echo"))
            await process.stdin.aclose()
    print(as_markdown(figures))


if __name__ == "__main__":
    uvloop = {"use_uvloop": True}
    if len(sys.argv) > 1:
        anyio.run(_serve, sys.argv[1], backend_options=uvloop)
    else:
        anyio.run(main, backend_options=uvloop)
