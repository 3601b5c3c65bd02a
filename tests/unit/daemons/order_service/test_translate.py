"""Orders out of messages and answers into them: what may be left out, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core import errors
from common.core import messages as m
from daemons.order_service.requests import Accepted, Answer, NewOrder
from daemons.order_service.translate import BATCH_MOST, fill_results, read_batch, read_order
from exchange.v1 import internal_pb2 as internal
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import types_pb2 as ty

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
ACCEPTED = st.builds(Accepted, INT64, st.text(max_size=9), st.text(max_size=9), INT64, INT64, st.booleans())


def raw(**fields: object) -> pb.NewOrder:
    given_fields: dict[str, object] = {"symbol": "BTC-USD", "side": 1, "type": 1, **fields}
    return pb.NewOrder(**given_fields)  # type: ignore[arg-type]  # The fields are the message's own.


@pytest.mark.parametrize("kind", list(m.OrderType))
@pytest.mark.parametrize("time", [0, *m.TimeInForce])
@pytest.mark.parametrize("stp", [0, *m.SelfTradePrevention])
def test_what_is_left_out_is_filled_in(kind: m.OrderType, time: int, stp: int) -> None:
    order = read_order(7, raw(side=2, type=kind, time_in_force=time, stp=stp, post_only=True))
    usual = m.TimeInForce.IOC if kind == m.OrderType.MARKET else m.TimeInForce.GTC
    assert order == NewOrder(
        7,
        "BTC-USD",
        m.Side.SELL,
        kind,
        m.TimeInForce(time or usual),
        True,
        m.SelfTradePrevention(stp or 1),
        0,
        0,
        0,
    )
    for value, enumeration in (
        (order.side, m.Side),
        (order.type, m.OrderType),
        (order.time_in_force, m.TimeInForce),
        (order.stp, m.SelfTradePrevention),
    ):
        assert type(value) is enumeration


@given(INT64, INT64, INT64, st.text(max_size=9))
def test_numbers_and_names_come_as_they_are(price: int, lots: int, atoms: int, name: str) -> None:
    order = read_order(7, raw(price_ticks=price, qty_lots=lots, quote_atoms=atoms, client_order_id=name))
    assert (order.price_ticks, order.qty_lots, order.quote_atoms, order.client_order_id) == (
        price,
        lots,
        atoms,
        name,
    )


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"side": 0}, {"side"}),
        ({"type": 0}, {"type"}),
        ({"type": 9, "time_in_force": 9}, {"type", "time_in_force"}),
        ({"side": 3, "stp": 4}, {"side", "stp"}),
        ({"time_in_force": -1}, {"time_in_force"}),
    ],
)
def test_what_is_missing_or_unknown_is_named(fields: dict[str, object], wrong: set[str]) -> None:
    with pytest.raises(errors.Malformed) as caught:
        read_order(7, raw(**fields))
    assert caught.value.details == dict.fromkeys(wrong, "is missing or unknown")


def test_an_order_that_cannot_be_read_keeps_its_place() -> None:
    good, bad = read_batch(7, [raw(), raw(side=0)])
    assert isinstance(good, NewOrder)
    assert isinstance(bad, errors.Malformed)


@pytest.mark.parametrize("orders", [0, BATCH_MOST + 1])
def test_a_batch_has_bounds(orders: int) -> None:
    with pytest.raises(errors.Malformed):
        read_batch(7, [raw()] * orders)


@given(st.lists(st.one_of(ACCEPTED, st.just(errors.InsufficientFunds("none", {"asset": "USD"}))), max_size=5))
def test_results_are_the_same_bytes_as_messages_put_together(answers: list[Answer]) -> None:
    response = internal.PlaceResponse()
    fill_results(response, answers)
    assert response == internal.PlaceResponse(results=[_result(answer) for answer in answers])


def _result(answer: Answer) -> pb.SubmitResult:
    if isinstance(answer, Accepted):
        return pb.SubmitResult(
            accepted=pb.Accepted(
                order_id=answer.order_id,
                client_order_id=answer.client_order_id,
                symbol=answer.symbol,
                sequence=answer.sequence,
                created_us=answer.created_us,
                repeated=answer.repeated,
            )
        )
    return pb.SubmitResult(
        error=ty.Error(
            code="INSUFFICIENT_FUNDS",
            message="none",
            details=[ty.ErrorDetail(key="asset", value="USD")],
        )
    )
