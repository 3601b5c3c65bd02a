"""Two ways into the exchange, HTTP and gRPC, with the same answers: the truth, or "ask again".

Each keeps the promise of the API in view: a 5xx is a 503 with Retry-After, and what is not a refusal for
a reason of the order itself is a violation.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import grpc
import grpc.aio

from common.core.units import time_to_text
from common.rpc import grpc_channel
from common.rpc_errors import from_rpc_error
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import orders_pb2_grpc
from exchange.v1 import types_pb2 as ty
from tests.chaos.client import Answer, Client, NoAnswer
from tests.chaos.told import Accepted, Json, Refused, Sent, Told, atoms

_GRPC_S = 10.0
# What a sound order may meet; the load also sends some that are not.
_REASONS = frozenset({409, 422})


class AskAgain(Exception):
    """No answer, or "busy": the same question is safe."""


class Door(Protocol):
    async def place(self, sent: Sent) -> Accepted | Refused:
        """Raises AskAgain."""

    async def place_all(self, sent: Sequence[Sent]) -> list[Accepted | Refused]:
        """In one request; raises AskAgain when nothing is known of any of them."""

    async def cancel(self, order_id: str) -> bool:
        """True when it was accepted, False when the order has ended. Raises AskAgain."""

    async def cancel_all(self) -> None: ...

    async def find(self, order_id: str) -> bool:
        """Whether the order is found. Raises AskAgain."""


class HttpDoor:
    def __init__(self, client: Client, told: Told) -> None:
        self._client = client
        self._told = told

    async def place(self, sent: Sent) -> Accepted | Refused:
        answer = await self._ask("POST", "/api/v1/orders", sent.want.body(sent.client_order_id))
        if answer.status in (200, 202):
            return self._accepted(answer.json(), sent)
        return self._refused(answer.status, answer.error_code, sent)

    async def place_all(self, sent: Sequence[Sent]) -> list[Accepted | Refused]:
        bodies = [one.want.body(one.client_order_id) for one in sent]
        answer = await self._ask("POST", "/api/v1/orders/batch", bodies)
        if answer.status != 202:
            self._told.violations.add(f"a batch was answered {answer.status} {answer.error_code}")
            raise AskAgain
        results = answer.json()["results"]
        assert len(results) == len(sent)
        if any(row.get("error", {}).get("code") in ("BUSY", "UNAVAILABLE") for row in results):
            raise AskAgain
        return [
            self._refused(422, row["error"]["code"], one) if "error" in row else self._accepted(row, one)
            for row, one in zip(results, sent, strict=True)
        ]

    async def cancel(self, order_id: str) -> bool:
        answer = await self._ask("DELETE", f"/api/v1/orders/{order_id}")
        if answer.status == 202:
            return True
        if answer.status != 409:
            self._told.violations.add(f"a cancel of {order_id} was answered {answer.status}")
        return False

    async def cancel_all(self) -> None:
        answer = await self._ask("DELETE", "/api/v1/orders")
        if answer.status != 202:
            self._told.violations.add(f"a cancel of all was answered {answer.status}")

    async def find(self, order_id: str) -> bool:
        return (await self._ask("GET", f"/api/v1/orders/{order_id}")).status == 200

    async def _ask(self, method: str, path: str, body: object = None) -> Answer:
        try:
            answer = await self._client.ask(method, path, body)
        except NoAnswer:
            self._told.silences += 1
            raise AskAgain from None
        self._told.answers[f"{answer.status} {answer.error_code}".strip()] += 1
        if answer.status >= 500 or answer.status == 429:
            if answer.status not in (503, 429) or not answer.headers.get("retry-after"):
                text = answer.body.decode(errors="replace")[:300]
                self._told.violations.add(f"{method} {path} was answered {answer.status}: {text}")
            raise AskAgain
        return answer

    def _accepted(self, row: Json, sent: Sent) -> Accepted:
        if (row["client_order_id"], row["symbol"]) != (sent.client_order_id, sent.want.symbol):
            self._told.violations.add(f"{sent} was answered {row}")
        return Accepted(row["order_id"], row["sequence"], row["created_at"])

    def _refused(self, status: int, code: str, sent: Sent) -> Refused:
        if status not in _REASONS:
            self._told.violations.add(f"{sent} was answered {status} {code}")
        return Refused(status, code)


class Units:
    """Atoms of one tick and one lot of each market, as GET /markets tells them."""

    def __init__(self, markets: Sequence[Mapping[str, str]]) -> None:
        self.tick = {row["symbol"]: atoms(row["tick_size"]) for row in markets}
        self.lot = {row["symbol"]: atoms(row["lot_size"]) for row in markets}


class GrpcDoor:
    def __init__(self, channel: grpc.aio.Channel, token: str, units: Units, told: Told) -> None:
        self._stub = orders_pb2_grpc.OrdersStub(channel)
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._units = units
        self._told = told

    async def place(self, sent: Sent) -> Accepted | Refused:
        try:
            answer = await self._stub.Submit(
                pb.SubmitRequest(order=self._order(sent)), timeout=_GRPC_S, metadata=self._metadata
            )
        except grpc.RpcError as error:
            return self._judge(error)
        self._told.answers["gRPC OK"] += 1
        return _accepted(answer.accepted)

    async def place_all(self, sent: Sequence[Sent]) -> list[Accepted | Refused]:
        request = pb.SubmitBatchRequest(orders=[self._order(one) for one in sent])
        try:
            answer = await self._stub.SubmitBatch(request, timeout=_GRPC_S, metadata=self._metadata)
        except grpc.RpcError as error:
            self._judge(error)
            raise AskAgain from None
        self._told.answers["gRPC OK"] += 1
        if any(result.error.code in ("BUSY", "UNAVAILABLE") for result in answer.results):
            raise AskAgain
        return [
            Refused(422, result.error.code) if result.HasField("error") else _accepted(result.accepted)
            for result in answer.results
        ]

    async def cancel(self, order_id: str) -> bool:
        request = pb.CancelRequest(order_id=int(order_id))
        try:
            await self._stub.Cancel(request, timeout=_GRPC_S, metadata=self._metadata)
        except grpc.RpcError as error:
            refused = self._judge(error)
            if refused.status != 409:
                self._told.violations.add(f"a cancel of {order_id} was answered {refused}")
            return False
        return True

    async def cancel_all(self) -> None:
        try:
            await self._stub.CancelAll(pb.CancelAllRequest(), timeout=_GRPC_S, metadata=self._metadata)
        except grpc.RpcError as error:
            self._told.violations.add(f"a cancel of all was answered {self._judge(error)}")

    async def find(self, order_id: str) -> bool:
        request = pb.GetOrderRequest(order_id=int(order_id))
        try:
            await self._stub.GetOrder(request, timeout=_GRPC_S, metadata=self._metadata)
        except grpc.RpcError as error:
            return self._judge(error).status != 404
        return True

    def _judge(self, error: grpc.RpcError) -> Refused:
        """What a status says of the order. Raises AskAgain when it says nothing."""
        meant = from_rpc_error(error)
        self._told.answers[f"gRPC {meant.code}"] += 1
        if meant.http_status == 500:
            self._told.violations.add(f"gRPC answered {error!r}")
        if meant.http_status >= 500:
            raise AskAgain from None
        return Refused(meant.http_status, meant.code)

    def _order(self, sent: Sent) -> pb.NewOrder:
        want = sent.want
        return pb.NewOrder(
            symbol=want.symbol,
            side=ty.Side.Value(f"SIDE_{want.side}"),
            type=ty.OrderType.Value(f"ORDER_TYPE_{want.type}"),
            time_in_force=ty.TimeInForce.Value(f"TIME_IN_FORCE_{want.time_in_force}"),
            post_only=want.post_only,
            stp=ty.SelfTradePrevention.Value(f"SELF_TRADE_PREVENTION_{want.stp}"),
            price_ticks=want.price // self._units.tick[want.symbol],
            qty_lots=want.quantity // self._units.lot[want.symbol],
            quote_atoms=want.quote_quantity,
            client_order_id=sent.client_order_id,
        )


def _accepted(accepted: pb.Accepted) -> Accepted:
    return Accepted(str(accepted.order_id), accepted.sequence, time_to_text(accepted.created_us))


@asynccontextmanager
async def http_door(port: int, token: str, told: Told) -> AsyncIterator[Door]:
    async with Client(port, token) as client:
        yield HttpDoor(client, told)


@asynccontextmanager
async def grpc_door(address: str, token: str, units: Units, told: Told) -> AsyncIterator[Door]:
    async with grpc_channel(address) as channel:
        yield GrpcDoor(channel, token, units, told)
