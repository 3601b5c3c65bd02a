"""Bots on gRPC streams, some messages of each under way, and an echo: what the streams alone can do."""

import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from itertools import cycle

import anyio
import grpc.aio

from common.rpc import grpc_channel
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import orders_pb2_grpc

BOTS = 10
UNDER_WAY = 32  # Messages that a bot has sent and not heard of.
GOALS = {1: ">= 3,500/s", 10: ">= 15,000/s"}  # By orders a message.

Metadata = tuple[tuple[str, str], ...]


async def drive(
    address: str,
    bots: Iterable[tuple[Metadata, Sequence[pb.SubmitStreamRequest]]],
    stop_s: float,
    answered: Callable[[pb.SubmitStreamResponse], None],
) -> None:
    """Each bot sends its messages over and over until `stop_s` (perf_counter), and hears all answers."""
    async with anyio.create_task_group() as group:
        for metadata, messages in bots:
            group.start_soon(partial(_bot, address, metadata, messages, stop_s, answered))


async def _bot(
    address: str,
    metadata: Metadata,
    messages: Sequence[pb.SubmitStreamRequest],
    stop_s: float,
    answered: Callable[[pb.SubmitStreamResponse], None],
) -> None:
    room = anyio.Semaphore(UNDER_WAY)

    async def requests() -> AsyncIterator[pb.SubmitStreamRequest]:
        for message in cycle(messages):
            await room.acquire()
            if time.perf_counter() >= stop_s:
                return
            yield message

    async with grpc_channel(address) as channel:
        stub: orders_pb2_grpc.OrdersAsyncStub = orders_pb2_grpc.OrdersStub(channel)
        async for answer in stub.SubmitStream(requests(), metadata=metadata):
            room.release()
            answered(answer)


async def _echo(
    requests: AsyncIterator[pb.SubmitStreamRequest], _: object
) -> AsyncIterator[pb.SubmitStreamResponse]:
    accepted = pb.Accepted(order_id=1 << 40, symbol="BTC-USD", sequence=1 << 30, created_us=1 << 50)
    result = pb.SubmitResult(accepted=accepted)
    async for request in requests:
        yield pb.SubmitStreamResponse(results=[result] * len(request.orders))


def register_echo(server: grpc.aio.Server) -> None:
    """Takes the messages of order-service, gives answers like its own, and does nothing in between."""
    handler = grpc.stream_stream_rpc_method_handler(
        _echo,
        request_deserializer=pb.SubmitStreamRequest.FromString,
        response_serializer=pb.SubmitStreamResponse.SerializeToString,
    )
    service = grpc.method_handlers_generic_handler("exchange.v1.Orders", {"SubmitStream": handler})
    server.add_generic_rpc_handlers((service,))
