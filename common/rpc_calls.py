"""What happens around every call that a gRPC server handles: errors, metrics, log context, drain.

Who calls is looked at only where a server was given `peers`; services read their metadata themselves.
Handlers are coroutines or asynchronous generators. In a drain, a stream of requests ends as if the client
had closed it, so that what was read is still answered; a stream of answers alone is ended with UNAVAILABLE.
"""

import uuid
from collections import Counter as Counting
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from time import perf_counter
from typing import Any, TypeAlias

import anyio
import grpc
import grpc.aio
import structlog
from prometheus_client import Counter, Gauge, Histogram

from common.core.errors import ExchangeError, Malformed, Unavailable
from common.peers import Peers
from common.rpc_errors import ERROR_KEY, error_to_bytes, status_of
from common.supervise import leaves
from common.telemetry import LATENCY_BUCKETS_S, get_logger

REQUEST_ID_KEY = "x-request-id"
MAX_REQUEST_ID = 128

log = get_logger(__name__)

_ended = Counter("exchange_rpc_calls_total", "Calls handled", ["method", "code"])
_under_way = Gauge("exchange_rpc_calls_under_way", "Calls being handled", ["method"])
_seconds = Histogram(
    "exchange_rpc_seconds",
    "Time from request to answer of unary calls",
    ["method"],
    buckets=LATENCY_BUCKETS_S,
)
_STATUS_OF_NUMBER: dict[int, grpc.StatusCode] = {status.value[0]: status for status in grpc.StatusCode}

# grpc leaves the types of requests and answers to the service; its classes are generic in the stubs alone.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
MaybeHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Calls(grpc.aio.ServerInterceptor):
    """The calls of one server."""

    def __init__(self, peers: Peers | None = None) -> None:
        """`peers`: who may call what; None: whoever reaches the port."""
        self._peers = peers
        self._handlers: dict[str, Handler] = {}
        self._waiting: set[anyio.CancelScope] = set()
        self._draining = False
        self._count = 0
        self.at_work: Counting[str] = Counting()  # Calls of each method.
        self._ended = anyio.Event()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[MaybeHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> MaybeHandler:
        method = handler_call_details.method
        if method not in self._handlers:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None  # Not cached: a caller could make up names for ever.
            self._handlers[method] = self._wrap(method, handler)
        return self._handlers[method]

    def drain(self) -> None:
        """End what would wait for more; calls that are at work go on."""
        self._draining = True
        for scope in self._waiting:
            scope.cancel()

    async def ended(self) -> None:
        """Return when no handler runs any more."""
        while self._count:
            await self._ended.wait()

    def _wrap(self, method: str, handler: Handler) -> Handler:
        behavior: Any  # Callable[[request or requests, Context], Awaitable or AsyncIterator]
        wrapped: Any
        if handler.request_streaming and handler.response_streaming:
            behavior, make = handler.stream_stream, grpc.stream_stream_rpc_method_handler
            wrapped = self._talk(method, behavior)
        elif handler.response_streaming:
            behavior, make = handler.unary_stream, grpc.unary_stream_rpc_method_handler
            wrapped = self._tell(method, behavior)
        elif handler.request_streaming:
            behavior, make = handler.stream_unary, grpc.stream_unary_rpc_method_handler
            wrapped = self._listen(method, behavior)
        else:
            behavior, make = handler.unary_unary, grpc.unary_unary_rpc_method_handler
            wrapped = self._answer(method, behavior)
        return make(wrapped, _reader(handler.request_deserializer), handler.response_serializer)

    def _answer(self, method: str, behavior: Any) -> Any:
        async def answer(request: object, context: Context) -> object:
            start_s = perf_counter()
            async with self._watch(method, context):
                response = await behavior(_readable(request), context)
            _seconds.labels(method).observe(perf_counter() - start_s)
            return response

        return answer

    def _listen(self, method: str, behavior: Any) -> Any:
        async def listen(requests: AsyncIterator[object], context: Context) -> object:
            async with self._watch(method, context), aclosing(self._until_drain(requests)) as bounded:
                return await behavior(bounded, context)

        return listen

    def _tell(self, method: str, behavior: Any) -> Any:
        async def tell(request: object, context: Context) -> None:
            async with self._watch(method, context):
                unbroken = _UnbrokenWrites(context)
                with self._interruptible() as scope:
                    await _write_all(behavior(_readable(request), unbroken), unbroken)
                if scope.cancelled_caught:
                    raise Unavailable("The server is going down; call again.")

        return tell

    def _talk(self, method: str, behavior: Any) -> Any:
        async def talk(requests: AsyncIterator[object], context: Context) -> None:
            async with self._watch(method, context), aclosing(self._until_drain(requests)) as bounded:
                await _write_all(behavior(bounded, context), context)

        return talk

    async def _until_drain(self, requests: AsyncIterator[object]) -> AsyncGenerator[object, None]:
        requests = aiter(requests)
        while True:
            with self._interruptible():
                try:
                    request = await anext(requests)
                except StopAsyncIteration:
                    return
            if self._draining:
                return
            yield _readable(request)

    @contextmanager
    def _interruptible(self) -> Iterator[anyio.CancelScope]:
        with anyio.CancelScope() as scope:
            if self._draining:
                scope.cancel()
            self._waiting.add(scope)
            try:
                yield scope
            finally:
                self._waiting.discard(scope)

    @asynccontextmanager
    async def _watch(self, method: str, context: Context) -> AsyncIterator[None]:
        """Count and name the call, and turn what its handler raises into a status."""
        # Each call has a task of its own, whose context ends with it.
        structlog.contextvars.bind_contextvars(request_id=_request_id(context))
        under_way = _under_way.labels(method)
        under_way.inc()
        self._count += 1
        self.at_work[method] += 1
        code = grpc.StatusCode.CANCELLED  # What remains when the task is cancelled.
        try:
            if self._peers is not None:
                self._peers.check(method, context)
            yield
            code = _code_of(context)
        except grpc.aio.AbortError:
            code = _code_of(context)
            raise
        except Exception as error:
            cause = _cause(method, error)
            code = status_of(cause)
            await context.abort(code, cause.message[:500], ((ERROR_KEY, error_to_bytes(cause)),))
        finally:
            under_way.dec()
            _ended.labels(method, code.name).inc()
            self._count -= 1
            self.at_work[method] -= 1
            self._ended.set()
            self._ended = anyio.Event()


_UNREADABLE = object()


def _reader(deserialize: Callable[[bytes], object] | None) -> Callable[[bytes], object] | None:
    """The same, but what is no message becomes `_UNREADABLE`: the library would log an error for each."""
    if deserialize is None:
        return None

    def read(data: bytes) -> object:
        try:
            return deserialize(data)
        except Exception:  # Whatever the library has for it.
            return _UNREADABLE

    return read


def _readable(request: object) -> object:
    """Raises Malformed."""
    if request is _UNREADABLE:
        raise Malformed("These bytes are not the method's request.")
    return request


class _UnbrokenWrites:
    """A context whose writes are finished once begun: while one is under way, grpc sends no status."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def write(self, message: object) -> None:
        with anyio.CancelScope(shield=True):
            await self._context.write(message)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


async def _write_all(outcome: Any, context: Any) -> None:
    """Carry out a streaming handler of either kind: one that yields, or one that writes by itself."""
    if not hasattr(outcome, "__aiter__"):
        await outcome
        return
    async with aclosing(outcome) as responses:
        async for response in responses:
            await context.write(response)


def _cause(method: str, error: Exception) -> ExchangeError:
    """The one ExchangeError behind `error`; anything else is logged here and kept from the caller."""
    causes = list(leaves(error))
    if len(causes) == 1 and isinstance(causes[0], ExchangeError) and causes[0].http_status != 500:
        return causes[0]
    from common.db import is_transient  # Here, because the gateway needs no PostgreSQL to import this.

    if len(causes) == 1 and is_transient(causes[0]):
        log.warning("a call was cut off", method=method, error=repr(error))
        return Unavailable("A server behind this does not answer right now")
    log.error("a call failed", method=method, error=repr(error), exc_info=error)
    return ExchangeError("Something went wrong; the log says what, under the request id.")


def _code_of(context: Context) -> grpc.StatusCode:
    code: object = context.code()  # Declared as StatusCode; in truth its number, or None until one is set.
    if isinstance(code, int):
        return _STATUS_OF_NUMBER[code]
    return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.OK


def _request_id(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY:
            return str(value)[:MAX_REQUEST_ID]
    return uuid.uuid4().hex
