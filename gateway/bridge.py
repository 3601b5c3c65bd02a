"""gRPC calls from Trio, without a thread per call.

grpc.aio needs asyncio, so this uses the synchronous channel's futures. Their done-callbacks run in
gRPC's own thread; there they only append to a deque and, when nobody has done so yet, ask Trio to
look at it. So however many calls end at once, Trio is woken once.
"""

import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar, cast

import grpc
import outcome
import trio

from common.core.errors import ExchangeError, Unavailable
from common.rpc import CHANNEL_OPTIONS, from_rpc_error, target, trusting
from common.rpc_errors import ERROR_KEY
from common.telemetry import get_logger
from common.tls import Role, Tls
from gateway import metrics

R = TypeVar("R")
T = TypeVar("T")

Metadata = Sequence[tuple[str, str]]

REPEAT_S = 0.02  # Before the next try: an instance that goes needs a moment to be seen going.
TRIES = 3  # Of a call that may be repeated: as many instances may be on their way out at once.
TELL_S = 1.0
REOPEN_S = 0.5  # A stream that ends means that its server does, or is not there yet.

log = get_logger(__name__)


RepeatOn = Callable[[grpc.RpcError], bool]


def never(_: grpc.RpcError) -> bool:
    return False


def unavailable(error: grpc.RpcError) -> bool:
    """The connection was lost, or the service says that it cannot answer (yet); not: that time was up."""
    return isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.UNAVAILABLE


def connection_lost(error: grpc.RpcError) -> bool:
    """gRPC itself gave the call up, not the service."""
    return (
        isinstance(error, grpc.Call)
        and unavailable(error)
        and ERROR_KEY not in dict(error.trailing_metadata() or ())
    )


class _Waiter:
    """A task that waits for one call; `task` is None once it has stopped waiting."""

    __slots__ = ("task",)

    def __init__(self) -> None:
        self.task: trio.lowlevel.Task | None = trio.lowlevel.current_task()


class Bridge:
    """Awaits gRPC futures in the Trio run that it was made in. Not for use by several runs."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._finished: deque[_Waiter] = deque()
        self._woken = False
        self._told_s = -math.inf

    async def call(
        self,
        method: "grpc.UnaryUnaryMultiCallable[T, R]",
        request: T,
        *,
        timeout_s: float,
        metadata: Metadata = (),
        repeat_on: RepeatOn = never,
    ) -> R:
        """Call and wait. Cancelling the task cancels the call; a refusal is raised as ExchangeError.

        What fails as `repeat_on` says is tried again at once, by another instance where there are several.
        """
        give_up_s = trio.current_time() + timeout_s
        tries = TRIES
        while True:
            tries -= 1
            waiter = _Waiter()
            left_s = give_up_s - trio.current_time()
            future = method.future(request, timeout=left_s, metadata=tuple(metadata))
            future.add_done_callback(partial(self._ended, waiter))

            await self._wait(waiter, future.cancel)
            try:
                return future.result()  # It is done: this does not block.
            except grpc.FutureCancelledError:
                raise Unavailable("The call was cut off; it may or may not have happened.") from None
            except grpc.RpcError as error:
                if tries == 0 or not repeat_on(error):
                    raise self._translate(error) from None
                metrics.repeated_calls.inc()
                await trio.sleep(REPEAT_S)

    async def keep_open(self, method: "grpc.UnaryStreamMultiCallable[T, R]", request: T) -> None:
        """Keep a stream open until cancelled, without reading it; a broken one is opened again.

        gRPC's thread of a channel lives while a call is open. Without this one, each call that comes
        alone starts a thread and ends it (measured: 2.1 ms of CPU a call instead of 1.4).
        """
        while True:
            waiter = _Waiter()
            stream = cast("grpc.Future[R]", method(request))  # The stubs do not say that it is one.
            stream.add_done_callback(partial(self._ended, waiter))

            await self._wait(waiter, stream.cancel)
            await trio.sleep(REOPEN_S)

    async def _wait(self, waiter: _Waiter, cancel: Callable[[], object]) -> None:
        """Until the call has ended; when this task is cancelled, so is the call, and nobody waits for it."""

        def abort(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            waiter.task = None
            cancel()
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _translate(self, error: grpc.RpcError) -> ExchangeError:
        """The error that the service raised; of gRPC's own ones the kind, while their words go to the log."""
        mapped = from_rpc_error(error)
        if isinstance(error, grpc.Call) and ERROR_KEY in dict(error.trailing_metadata() or ()):
            return mapped
        if trio.current_time() - self._told_s > TELL_S:  # While a service is away, every call fails.
            self._told_s = trio.current_time()
            log.warning("call failed", error=mapped.message, code=mapped.code)
        return type(mapped)()  # Addresses and library messages are nothing for the public.

    def _ended(self, waiter: _Waiter, _: object) -> None:
        """In gRPC's thread. Both orders of append and look at `_woken` are safe: see `_wake`."""
        self._finished.append(waiter)
        if not self._woken:
            self._woken = True
            try:
                self._token.run_sync_soon(self._wake)
            except trio.RunFinishedError:
                return  # Nobody waits any more.

    def _wake(self) -> None:
        """In Trio's thread. The flag falls before the deque is read, so that a later append wakes again."""
        self._woken = False
        while self._finished:
            waiter = self._finished.popleft()
            if waiter.task is not None:
                trio.lowlevel.reschedule(waiter.task, outcome.Value(None))
                waiter.task = None


@asynccontextmanager
async def open_channel(
    address: str, tls: Tls | None = None, role: Role = Role.ORDER_SERVICE
) -> AsyncIterator[grpc.Channel]:
    """A channel over the instances at `address` (see `target`); under TLS they must be of this role.

    It connects in the background, and fails fast while nobody is there.
    """
    if tls is None:
        channel = grpc.insecure_channel(target(address), options=CHANNEL_OPTIONS)
    else:
        channel = grpc.secure_channel(target(address), tls.channel_credentials(), options=trusting(role))
    try:
        yield channel
    finally:
        channel.close()
