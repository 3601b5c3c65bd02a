"""Which orders are sent again when the connection to an order-service is lost."""

from collections.abc import Callable
from typing import Any, cast

import grpc
import pytest

from common.core.errors import Unavailable
from exchange.v1 import internal_pb2 as internal
from exchange.v1 import orders_pb2 as pb
from gateway.bridge import Bridge, connection_lost, never
from gateway.services import Services

pytestmark = pytest.mark.anyio


class Bridged:
    """A bridge whose first call loses its connection, once more than it may be repeated."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], Callable[[grpc.RpcError], bool]]] = []

    async def call(self, _: object, request: internal.PlaceRequest, **how: Any) -> internal.PlaceResponse:
        names = [each.order.client_order_id for each in request.orders]
        self.calls.append((names, how["repeat_on"]))
        if len(self.calls) == 1:
            raise Unavailable("It went away.")
        accepted = [pb.SubmitResult(accepted=pb.Accepted(client_order_id=name)) for name in names]
        return internal.PlaceResponse(results=accepted)


async def placed(*names: str) -> tuple[Bridged, list[str]]:
    """What became of each order, and the calls that it took."""
    bridged = Bridged()
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        services = Services(cast(Bridge, bridged), channel, channel)
        orders = [internal.UserOrder(user_id=1, order=pb.NewOrder(client_order_id=name)) for name in names]
        response = await services.place(internal.PlaceRequest(orders=orders), "r")
    return bridged, [one.accepted.client_order_id or one.error.code for one in response.results]


async def test_orders_with_a_name_are_sent_again_and_the_others_are_told_that_nobody_knows() -> None:
    bridged, results = await placed("a", "", "b")
    assert results == ["a", "UNAVAILABLE", "b"]
    assert bridged.calls == [(["a", "", "b"], never), (["a", "b"], connection_lost)]


@pytest.mark.parametrize(("name", "repeat_on"), [("", never), ("a", connection_lost)])
async def test_when_all_are_alike_the_call_as_a_whole_is_repeated_or_not(
    name: str, repeat_on: Callable[[grpc.RpcError], bool]
) -> None:
    bridged = Bridged()
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        services = Services(cast(Bridge, bridged), channel, channel)
        request = internal.PlaceRequest(
            orders=[internal.UserOrder(user_id=1, order=pb.NewOrder(client_order_id=name))]
        )
        with pytest.raises(Unavailable, match="It went away"):
            await services.place(request, "r")
    assert bridged.calls == [([name], repeat_on)]
