"""Tells each market-data of order updates right after TX2, beside Kafka and a few milliseconds ahead of it.

Does not promise: that anything arrives. Kafka brings every update all the same, and market-data drops what
it has had. So a line to a market-data that is away or slow drops what it is given, and nobody waits: `tell`
only queues.

Each record travels with the place of the one before it in its partition's log. Who has not had that one waits
for Kafka, so a record that was dropped is never jumped over; one whose place is not certain is left to Kafka.
"""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import grpc
import grpc.aio
from prometheus_client import Counter

from common.config import addresses
from common.core.errors import ExchangeError
from common.rpc import from_rpc_error, grpc_channel
from common.telemetry import get_logger
from common.tls import Role, Tls
from exchange.v1 import events_pb2, internal_pb2, internal_pb2_grpc

CALL_S = 1.0
CALL_BYTES = 1 << 20
MAX_WAITING = 1_000  # Records that wait while a call is under way.
MAX_WAITING_BYTES = 4 << 20
AWAY_S = 0.5  # After a call that failed, what comes is dropped for so long.

TOLD_DIRECTLY = Counter(
    "exchange_order_updates_told_directly_total",
    "Records of order updates for market-data beside Kafka, by what became of them",
    ["result"],
)

log = get_logger(__name__)

Place = tuple[int, int]  # The last sequence of a record, and the last of its orders.
Send = Callable[[internal_pb2.TellRequest], Awaitable[None]]


class Line:
    """The way to one market-data. `send` raises ExchangeError."""

    def __init__(self, name: str, send: Send) -> None:
        self._name = name
        self._send = send
        self._waiting: deque[internal_pb2.Told] = deque()
        self._waiting_bytes = 0
        self._came = anyio.Event()
        self._away_until_s = float("-inf")

    def put(self, told: internal_pb2.Told) -> None:
        """Queue it, or drop it: returns at once."""
        size_bytes = len(told.updates)
        full = len(self._waiting) >= MAX_WAITING or self._waiting_bytes + size_bytes > MAX_WAITING_BYTES
        if full or anyio.current_time() < self._away_until_s:
            TOLD_DIRECTLY.labels("dropped").inc()
            return
        self._waiting.append(told)
        self._waiting_bytes += size_bytes
        self._came.set()

    async def run(self) -> None:
        """Send until cancelled; what comes while a call is under way shares the next one."""
        while True:
            await self._came.wait()
            self._came = anyio.Event()
            while self._waiting:
                await self._call(self._take())

    def _take(self) -> list[internal_pb2.Told]:
        taken: list[internal_pb2.Told] = []
        size_bytes = 0
        while self._waiting and size_bytes < CALL_BYTES:
            taken.append(self._waiting.popleft())
            size_bytes += len(taken[-1].updates)
        self._waiting_bytes -= size_bytes
        return taken

    async def _call(self, told: Sequence[internal_pb2.Told]) -> None:
        try:
            with anyio.fail_after(CALL_S):
                await self._send(internal_pb2.TellRequest(told=told))
        except (ExchangeError, TimeoutError) as error:
            log.debug("market-data is not told", address=self._name, error=repr(error))
            TOLD_DIRECTLY.labels("failed").inc(len(told))
            TOLD_DIRECTLY.labels("dropped").inc(len(self._waiting))
            self._waiting.clear()
            self._waiting_bytes = 0
            self._away_until_s = anyio.current_time() + AWAY_S
        else:
            TOLD_DIRECTLY.labels("sent").inc(len(told))


class Teller:
    """All lines, and where each partition's updates stand."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines
        self._last: dict[int, Place] = {}

    async def run(self) -> None:
        """Send until cancelled; without this, nothing leaves."""
        async with anyio.create_task_group() as group:
            for line in self._lines:
                group.start_soon(line.run)

    def begin(self, partition: int) -> None:
        """A settler begins with this partition: what was told of it last is not known."""
        self._last.pop(partition, None)

    def tell(self, partition: int, values: Sequence[bytes]) -> None:
        """Records of exchange.order_updates, in their order, after the commit of what they tell (I11).

        All those of a batch come, in this call or the next; `begin` comes first when a settler died between.
        """
        if not self._lines:
            return
        for value in values:
            updates = events_pb2.OrderUpdates.FromString(value)
            place = updates.last_sequence, updates.orders[-1].state.order_id
            last = self._last.get(partition)
            if last is not None and place <= last:
                continue  # Published again: whoever missed it hears of it from Kafka.
            self._last[partition] = place
            # Where it does not follow what was told, nobody could know whether something is missing between
            # them: a batch that touched no order, or what another settler has told.
            if last is None or last[0] not in (updates.first_sequence - 1, updates.last_sequence):
                continue
            told = internal_pb2.Told(
                partition=partition, updates=value, after_sequence=last[0], after_order_id=last[1]
            )
            for line in self._lines:
                line.put(told)


@asynccontextmanager
async def teller(several: str, tls: Tls | None = None) -> AsyncIterator[Teller]:
    """A teller for the market-datas at host:port,host:port, one line each; the caller runs it."""
    async with AsyncExitStack() as stack:
        lines = []
        for address in addresses(several):
            channel = await stack.enter_async_context(grpc_channel(address, tls, Role.MARKET_DATA))
            lines.append(Line(address, _sender(channel)))
        yield Teller(lines)


def _sender(channel: grpc.aio.Channel) -> Send:
    # The generated stub serves both kinds of channel; its type knows which.
    stub: internal_pb2_grpc.MarketDataInternalAsyncStub = internal_pb2_grpc.MarketDataInternalStub(channel)

    async def send(request: internal_pb2.TellRequest) -> None:
        try:
            await stub.Tell(request)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    return send
