"""Orders over gRPC, straight to order-service: for bots on asyncio that send many. Needs the extra `grpc`.

    async with GrpcOrders("127.0.0.1:8101", Token(token)) as orders:
        accepted = await orders.place(order)

The same orders, answers and errors as over HTTP, and the same repeating. Signed calls begin with this
machine's clock and learn the exchange's from its first refusal, unless they are given that of an `Exchange`.
"""

import random
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from exchange_client.clock import Clock
from exchange_client.credentials import SIGN_AGAIN, Credentials
from exchange_client.errors import NoAnswer, Refusal, refusal
from exchange_client.grpc_types import Description, describe
from exchange_client.grpc_values import Units, accepted_of, error_of, result_of
from exchange_client.patience import Effect, Patience, persist
from exchange_client.values import Accepted, Canceling, NewOrder

_CODES = {
    grpc.StatusCode.UNAUTHENTICATED: ("UNAUTHENTICATED", 401),
    grpc.StatusCode.PERMISSION_DENIED: ("FORBIDDEN", 403),
    grpc.StatusCode.NOT_FOUND: ("NOT_FOUND", 404),
    grpc.StatusCode.INVALID_ARGUMENT: ("MALFORMED", 400),
    grpc.StatusCode.RESOURCE_EXHAUSTED: ("BUSY", 503),
}
# A peer that is silent for so long is gone, also while a stream waits for it.
ALIVE = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
)


class GrpcOrders:
    """A channel of one user. `tls`: the channel's credentials; None: none, for loopback."""

    def __init__(
        self,
        address: str,
        credentials: Credentials,
        *,
        patience: Patience | None = None,
        tls: grpc.ChannelCredentials | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._address = address
        self._credentials = credentials
        self._patience = patience or Patience()
        self._tls = tls
        self._clock = clock or Clock()
        self._dice = random.Random()  # noqa: S311 - spreads pauses, guards nothing
        self._channel: grpc.aio.Channel
        self._about: Description
        self._units: Units

    async def __aenter__(self) -> Self:
        """Asks the server how its messages look and which markets there are."""
        if self._tls is None:
            self._channel = grpc.aio.insecure_channel(self._address, options=ALIVE)
        else:
            self._channel = grpc.aio.secure_channel(self._address, self._tls, options=ALIVE)
        try:
            await persist(self._open, Effect.READ, self._patience, self._dice)
        except BaseException:
            await self._channel.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    # ---- orders -----------------------------------------------------------------------------------

    async def place(self, order: NewOrder) -> Accepted:
        """As Exchange.place."""
        request = self._request("Submit")
        self._units.fill(request.order, order)
        return accepted_of((await self._persist("Submit", request, Effect.NAMED)).accepted)

    async def place_batch(self, orders: Sequence[NewOrder]) -> list[Accepted | Refusal]:
        """As Exchange.place_batch, but a result that is Busy or Unavailable is not asked for again."""
        answer = await self._persist("SubmitBatch", self._batch("SubmitBatch", orders), Effect.NAMED)
        return [result_of(result) for result in answer.results]

    async def place_stream(
        self, batches: AsyncIterable[Sequence[NewOrder]]
    ) -> AsyncIterator[list[Accepted | Refusal]]:
        """One answer for each batch, in their order, many under way at once: the quickest way.

        Raises NoAnswer when the stream breaks: to place again what was not answered tells the truth.
        """
        method = self._about.method("SubmitStream")

        async def requests() -> AsyncIterator[Any]:
            async for orders in batches:
                yield self._batch("SubmitStream", orders)

        call = self._channel.stream_stream(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )(requests(), metadata=self._identity(method.path))
        try:
            async for answer in call:
                yield [result_of(result) for result in answer.results]
        except grpc.aio.AioRpcError as error:
            raise self._error_of(error) from error
        finally:
            call.cancel()

    async def cancel(self, order_id: str) -> Canceling:
        """As Exchange.cancel; after a lost answer, OrderNotLive may mean that it was this cancel."""
        request = self._request("Cancel")
        request.order_id = int(order_id)
        answer = await self._persist("Cancel", request, Effect.NAMED)
        return Canceling(str(answer.order_id), answer.sequence)

    async def cancel_all(self, symbol: str | None = None) -> int:
        """As Exchange.cancel_all, but not sent again when nobody knows whether it was carried out."""
        request = self._request("CancelAll")
        request.symbol = symbol or ""
        return int((await self._persist("CancelAll", request, Effect.ONCE)).canceling)

    # ---- calls ------------------------------------------------------------------------------------

    async def _open(self) -> None:
        try:
            self._about = await describe(self._channel)
        except grpc.aio.AioRpcError as error:
            raise _by_status(error) from error
        self._units = Units(await self._call("ListMarkets", self._request("ListMarkets")))

    def _request(self, name: str) -> Any:
        return self._about.method(name).request()

    def _batch(self, name: str, orders: Sequence[NewOrder]) -> Any:
        request = self._request(name)
        for order in orders:
            self._units.fill(request.orders.add(), order)
        return request

    async def _persist(self, name: str, request: Any, effect: Effect) -> Any:
        return await persist(lambda: self._call(name, request), effect, self._patience, self._dice)

    async def _call(self, name: str, request: Any) -> Any:
        """A timestamp that was refused comes back with the exchange's time: once more, by that."""
        try:
            return await self._call_once(name, request)
        except Refusal as error:
            if error.code not in SIGN_AGAIN:
                raise
            if error.details.get("server_ms", "").isdigit():
                here_s = self._clock.here_s()
                told = datetime.fromtimestamp(int(error.details["server_ms"]) / 1000, UTC)
                self._clock.took(here_s, here_s, told)
        return await self._call_once(name, request)

    async def _call_once(self, name: str, request: Any) -> Any:
        method = self._about.method(name)
        call = self._channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        try:
            return await call(request, metadata=self._identity(method.path))
        except grpc.aio.AioRpcError as error:
            raise self._error_of(error) from error

    def _identity(self, path: str) -> tuple[tuple[str, str], ...]:
        return tuple(self._credentials.metadata(self._clock.stamp_ms(), path).items())

    def _error_of(self, error: grpc.aio.AioRpcError) -> NoAnswer | Refusal:
        """What the exchange says beside the status; without a word from it, what the status means."""
        for key, value in error.trailing_metadata() or ():
            if key == "error-bin" and isinstance(value, bytes):
                _, status = _CODES.get(error.code(), ("", 0))
                return error_of(self._about.error.FromString(value), status)
        return _by_status(error)


def _by_status(error: grpc.aio.AioRpcError) -> NoAnswer | Refusal:
    text = error.details() or error.code().name
    if error.code() in _CODES:
        code, status = _CODES[error.code()]
        return refusal(code, text, status=status)
    return NoAnswer(f"the answer was lost: {error.code().name} {text}")
