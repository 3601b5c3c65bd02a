"""Orders out of protobuf's messages, and answers into them. Pure; every order passes here."""

from collections.abc import Iterable, Sequence

from common.core.errors import ExchangeError, Malformed
from common.core.messages import OrderType, SelfTradePrevention, Side, TimeInForce
from common.rpc_errors import error_to_proto
from daemons.order_service.requests import Accepted, Answer, NewOrder
from exchange.v1 import internal_pb2 as internal
from exchange.v1 import orders_pb2 as pb

BATCH_MOST = 1_000

# What the numbers in a new order mean; 0 leaves the choice to the exchange, where it has one.
_SIDES: dict[int, Side] = {int(side): side for side in Side}
_TYPES: dict[int, OrderType] = {int(kind): kind for kind in OrderType}
_STPS: dict[int, SelfTradePrevention] = {
    0: SelfTradePrevention.CANCEL_TAKER,
    **{int(stp): stp for stp in SelfTradePrevention},
}
_TIMES: dict[int, TimeInForce] = {int(time): time for time in TimeInForce}
_TIMES_IN_FORCE: dict[int, dict[int, TimeInForce]] = {
    OrderType.LIMIT: {0: TimeInForce.GTC, **_TIMES},
    OrderType.MARKET: {0: TimeInForce.IOC, **_TIMES},
}

Results = pb.SubmitBatchResponse | pb.SubmitStreamResponse | internal.PlaceResponse


def read_batch(user_id: int, orders: Sequence[pb.NewOrder]) -> list[NewOrder | ExchangeError]:
    """One user's orders, in a call or a message; raises Malformed when there are none or too many."""
    if not 0 < len(orders) <= BATCH_MOST:
        raise Malformed(f"A batch has 1 to {BATCH_MOST} orders", {"orders": str(len(orders))})
    return [order_or_error(user_id, order) for order in orders]


def order_or_error(user_id: int, order: pb.NewOrder) -> NewOrder | ExchangeError:
    try:
        return read_order(user_id, order)
    except ExchangeError as error:
        return error


def read_order(user_id: int, order: pb.NewOrder) -> NewOrder:
    """Fill in what may be left out; raises Malformed for what must not."""
    kind = order.type
    try:
        return NewOrder(
            user_id,
            order.symbol,
            _SIDES[order.side],
            _TYPES[kind],
            _TIMES_IN_FORCE[kind][order.time_in_force],
            order.post_only,
            _STPS[order.stp],
            order.price_ticks,
            order.qty_lots,
            order.quote_atoms,
            order.client_order_id,
        )
    except KeyError:
        raise Malformed("The order cannot be read", _problems(order)) from None


def _problems(order: pb.NewOrder) -> dict[str, str]:
    return {
        name: "is missing or unknown"
        for name, value, known in (
            ("side", order.side, _SIDES),
            ("type", order.type, _TYPES),
            ("time_in_force", order.time_in_force, {0, *_TIMES}),
            ("stp", order.stp, _STPS),
        )
        if value not in known
    }


def fill_results(response: Results, answers: Iterable[Answer]) -> None:
    add = response.results.add
    for answer in answers:
        if isinstance(answer, ExchangeError):
            add(error=error_to_proto(answer))
        else:
            fill_accepted(add().accepted, answer)


def fill_accepted(accepted: pb.Accepted, answer: Answer) -> None:
    """Written where it stands, field by field: that costs less than half of a message put into another."""
    assert isinstance(answer, Accepted)
    accepted.order_id = answer.order_id
    accepted.client_order_id = answer.client_order_id
    accepted.symbol = answer.symbol
    accepted.sequence = answer.sequence
    accepted.created_us = answer.created_us
    accepted.repeated = answer.repeated
