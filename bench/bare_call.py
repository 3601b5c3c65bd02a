"""`python -m bench.bare_call ADDRESS TASKS SECONDS`: gRPC calls of one order each through the gateway's
bridge, and nothing else. Prints how many there were and the CPU seconds that they cost.
"""

import sys
import time

import trio

from exchange.v1 import internal_pb2 as internal
from exchange.v1 import internal_pb2_grpc
from exchange.v1 import orders_pb2 as pb
from gateway.bridge import Bridge, open_channel

TIMEOUT_S = 5.0


async def main(address: str, tasks: int, seconds: float) -> None:
    calls = 0
    request = internal.PlaceRequest(
        orders=[internal.UserOrder(user_id=1001, order=pb.NewOrder(symbol="BTC-USD", qty_lots=100))]
    )
    async with open_channel(address) as channel:
        bridge, place = Bridge(), internal_pb2_grpc.OrderInternalStub(channel).Place
        await bridge.call(place, request, timeout_s=TIMEOUT_S)

        async def ask() -> None:
            nonlocal calls
            while True:
                await bridge.call(place, request, timeout_s=TIMEOUT_S)
                calls += 1

        before_s = time.process_time()
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for _ in range(tasks):
                    nursery.start_soon(ask)
        print(calls, time.process_time() - before_s)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
