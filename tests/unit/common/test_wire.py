"""Every message there and back, settlements cut into parts and joined, and bytes that are none."""

import dataclasses
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mypy_extensions import i64

from common import wire
from common.core import messages as m
from common.core.sequencing import chain_of
from exchange.v1 import events_pb2 as ev
from exchange.v1 import types_pb2 as ty

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
CHAINS = st.binary(min_size=32, max_size=32)
# Everything that stands in a message, by the annotation of the field.
BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    int: INT64,
    i64: INT64,
    str: st.text(st.characters(codec="utf-8"), max_size=20),
    bool: st.booleans(),
    bytes: CHAINS,
}
SMALL = {
    "asset_id", "scale", "market_id", "partition", "maker_fee_bps", "taker_fee_bps", "engine_version",
}  # int32 on the wire.  # fmt: skip
ASSETS = st.builds(m.Asset, INT32, BY_TYPE[str], INT32)


def values(kind: type, **given_fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A strategy for a dataclass of `messages`, field by field."""
    fields = {}
    for field in dataclasses.fields(kind):
        if field.name in given_fields:
            fields[field.name] = given_fields[field.name]
        elif field.name in SMALL:
            fields[field.name] = INT32
        elif isinstance(field.type, type) and issubclass(field.type, IntEnum):
            fields[field.name] = st.sampled_from(list(field.type))
        else:
            fields[field.name] = BY_TYPE[field.type]
    return st.builds(kind, **fields)


MARKETS = values(m.Market, base=ASSETS, quote=ASSETS)
COMMANDS = st.one_of(
    values(m.Place),
    values(m.Cancel),
    values(m.CancelAll),
    st.builds(m.SetMarket, MARKETS),
    values(m.Noop),
)
TRADES, ORDER_STATES, MARKET_STATES = values(m.Trade), values(m.OrderState), values(m.MarketState)
SETTLEMENTS = values(
    m.Settlement,
    trades=st.lists(TRADES, max_size=5),
    orders=st.lists(ORDER_STATES, max_size=5),
    markets=st.lists(MARKET_STATES, max_size=3),
    digests=st.lists(values(m.BookDigest), max_size=3),
)
LEVELS = st.lists(st.tuples(INT64, INT64), max_size=5)
BOOKS = values(m.BookUpdate, bids=LEVELS, asks=LEVELS)


@given(MARKETS)
def test_a_market(market: m.Market) -> None:
    assert wire.market_from_proto(wire.market_to_proto(market)) == market


@given(st.lists(COMMANDS, max_size=5))
def test_commands(commands: list[m.Command]) -> None:
    data = wire.encode_commands(commands)
    assert wire.decode_commands(data) == commands
    assert wire.encode_commands(wire.decode_commands(data)) == data


@given(
    INT32,
    st.integers(1, (1 << 62)),
    st.integers(0, (1 << 62)),
    CHAINS,
    st.lists(COMMANDS, min_size=1, max_size=3),
)
def test_a_batch(
    partition: int, first: int, time_us: int, previous: bytes, commands: list[m.Command]
) -> None:
    body = wire.encode_commands(commands)
    chain = chain_of(previous, first, time_us, body)
    data = wire.encode_batch(
        partition=partition,
        first_sequence=first,
        time_us=time_us,
        previous_chain=previous,
        chain=chain,
        commands=body,
    )
    assert wire.decode_batch(data) == m.Batch(partition, first, time_us, previous, chain, commands)


@given(SETTLEMENTS)
def test_a_settlement(settlement: m.Settlement) -> None:
    data = wire.encode_settlement(settlement)
    assert wire.decode_settlement(data) == settlement
    assert wire.encode_settlement(wire.decode_settlement(data)) == data


@given(BOOKS)
def test_a_book_update(update: m.BookUpdate) -> None:
    assert wire.decode_book(wire.encode_book(update)) == update


@given(ORDER_STATES)
def test_an_order_state(state: m.OrderState) -> None:
    assert wire.order_state_from_proto(wire.order_state_to_proto(state)) == state


@given(st.lists(TRADES, max_size=5), INT32, INT64, INT64)
def test_public_trades_name_nobody(trades: list[m.Trade], partition: int, last: int, time_us: int) -> None:
    data = wire.encode_trades(partition=partition, last_sequence=last, trades=trades, time_us=time_us)
    batch = wire.decode_trades(data)
    assert (batch.partition, batch.last_sequence) == (partition, last)
    assert [
        (one.market_id, one.trade_id, one.price_ticks, one.qty_lots, int(one.taker_side), one.time_us)
        for one in batch.trades
    ] == [(t.market_id, t.trade_id, t.price_ticks, t.qty_lots, int(t.taker_side), time_us) for t in trades]
    assert not {"user_id", "order_id"} & set(ev.TradeBatch.DESCRIPTOR.fields_by_name)


BTC_USD = m.Market(1, "BTC-USD", m.Asset(2, "BTC", 8), m.Asset(1, "USD", 8), 0, 10**6, 1000, 10**8, 10, 20)


def trade(taker_side: m.Side) -> m.Trade:
    """Order 50 of user 5 takes from order 40 of user 4."""
    return m.Trade(1, 9, 77, 100, 3, taker_side, 40, 50, 4, 5, 11, 22)


@pytest.mark.parametrize("taker_side", list(m.Side))
def test_both_sides_of_a_trade_are_fills_with_the_fee_of_what_they_receive(taker_side: m.Side) -> None:
    fills = wire.fills_by_order([trade(taker_side)], {1: BTC_USD}, 8)
    [maker], [taker] = fills[40], fills[50]
    assert (maker.fee_atoms, taker.fee_atoms) == (11, 22)
    assert (maker.liquidity, taker.liquidity) == (ty.LIQUIDITY_MAKER, ty.LIQUIDITY_TAKER)
    assert taker.side == int(taker_side)
    assert maker.side != taker.side
    receives = {int(m.Side.BUY): 2, int(m.Side.SELL): 1}
    assert [fill.fee_asset_id for fill in (maker, taker)] == [receives[maker.side], receives[taker.side]]
    assert {fill.time_us for fill in (maker, taker)} == {8}


def settlement(orders: int, first: int = 5) -> m.Settlement:
    states = [
        m.OrderState(40 + n, 4, 1, "", m.Side.SELL, m.OrderStatus.FILLED, m.Reason.NONE, 3, 300, 11, 0, 0, 77)
        for n in range(orders)
    ]
    return m.Settlement(0, first, first + 2, 8, bytes(32), b"c" * 32, 1, [trade(m.Side.BUY)], states)


def test_order_updates_carry_each_order_with_its_own_fills() -> None:
    [record] = wire.encode_order_updates(settlement(2), {1: BTC_USD})
    updates = wire.decode_order_updates(record)
    assert (updates.partition, updates.first_sequence, updates.last_sequence, updates.time_us) == (0, 5, 7, 8)
    first, second = updates.orders
    assert (first.state.order_id, [fill.trade_id for fill in first.fills]) == (40, [9])
    assert (second.state.order_id, list(second.fills)) == (41, [])


def test_the_updates_of_a_sweep_come_in_parts_that_hold_every_order_once() -> None:
    records = list(wire.encode_order_updates(settlement(500), {1: BTC_USD}, part_bytes=1_000))
    assert len(records) > 10
    assert max(map(len, records)) < 1_200
    parts = [wire.decode_order_updates(record) for record in records]
    assert {(part.first_sequence, part.last_sequence, part.time_us) for part in parts} == {(5, 7, 8)}
    assert [update.state.order_id for part in parts for update in part.orders] == list(range(40, 540))
    assert list(wire.encode_order_updates(settlement(0), {1: BTC_USD})) == []


# ---- parts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("part_bytes", [1, 7, 100, 1 << 20])
def test_parts_are_cut_to_size_and_join_to_the_same(part_bytes: int) -> None:
    whole = settlement(5)
    parts = wire.settlement_parts(whole, part_bytes)
    size = len(wire.encode_settlement(whole))
    assert len(parts) == -(-size // part_bytes)
    assert all(len(ev.SettlementPart.FromString(part).body) <= part_bytes for part in parts)
    joiner = wire.SettlementJoiner()
    joined = [joiner.add(part, 7) for part in parts]
    assert joined == [None] * (len(parts) - 1) + [whole]
    assert not joiner.pending


def test_a_settlement_that_fits_is_one_part() -> None:
    whole = settlement(5)
    size = len(wire.encode_settlement(whole))
    assert len(wire.settlement_parts(whole, size)) == 1
    assert len(wire.settlement_parts(whole, size - 1)) == 2


def test_parts_whose_first_was_lost_are_passed_over() -> None:
    parts, joiner = wire.settlement_parts(settlement(5), 100), wire.SettlementJoiner()
    assert [joiner.add(part, 7) for part in parts[1:]] == [None] * (len(parts) - 1)
    assert not joiner.pending
    assert [joiner.add(part, 7) for part in parts][-1] == settlement(5)


def test_a_part_out_of_order_ends_the_whole_and_it_is_taken_when_it_comes_again() -> None:
    parts, joiner = wire.settlement_parts(settlement(5), 100), wire.SettlementJoiner()
    shuffled = [parts[0], parts[2], parts[1], *parts[3:]]
    assert [joiner.add(part, 7) for part in shuffled] == [None] * len(parts)
    assert not joiner.pending
    assert [joiner.add(part, 7) for part in parts][-1] == settlement(5)


def test_a_beginning_that_comes_twice_starts_again() -> None:
    parts, joiner = wire.settlement_parts(settlement(5), 100), wire.SettlementJoiner()
    joiner.add(parts[0], 7)
    joiner.add(parts[1], 7)
    assert joiner.pending
    assert [joiner.add(part, 7) for part in parts][-1] == settlement(5)


def test_parts_of_two_leaders_are_never_joined() -> None:
    parts, joiner = wire.settlement_parts(settlement(5), 100), wire.SettlementJoiner()
    joiner.add(parts[0], 7)
    assert [joiner.add(part, 8) for part in parts[1:]] == [None] * (len(parts) - 1)
    other = wire.settlement_parts(settlement(5, first=8), 100)
    joiner.add(parts[0], 7)
    assert [joiner.add(part, 7) for part in other[1:]] == [None] * (len(other) - 1)


def test_the_new_leaders_settlement_is_joined_though_the_old_ones_parts_come_between() -> None:
    whole, joiner = settlement(5), wire.SettlementJoiner()
    parts = wire.settlement_parts(whole, 100)
    joiner.add(parts[0], 7)
    joined = []
    for number, part in enumerate(parts):
        joined.append(joiner.add(part, 8))
        if 0 < number < len(parts) - 1:
            assert joiner.add(part, 7) is None
    assert joined[-1] == whole


# ---- bytes that are none ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "decode",
    [
        wire.decode_batch,
        wire.decode_commands,
        wire.decode_settlement,
        wire.decode_trades,
        wire.decode_book,
        wire.decode_order_updates,
        lambda data: wire.SettlementJoiner().add(data, 1),
    ],
)
def test_bytes_that_are_no_message(decode: Any) -> None:
    with pytest.raises(wire.Undecodable):
        decode(b"\xff\xff\xff")


def test_a_batch_whose_chain_does_not_cover_its_bytes() -> None:
    body = wire.encode_commands([m.Cancel(1, 2)])
    chain = chain_of(bytes(32), 1, 5, body)
    good = {"partition": 0, "first_sequence": 1, "time_us": 5, "previous_chain": bytes(32), "chain": chain}
    assert wire.decode_batch(wire.encode_batch(**good, commands=body)).last_sequence == 1  # type: ignore[arg-type]  # a dict of mixed values
    for change in (
        {"first_sequence": 2},
        {"first_sequence": -1},
        {"time_us": 6},
        {"time_us": -6},
        {"previous_chain": b"x" * 32},
        {"previous_chain": b"short"},
        {"chain": b""},
    ):
        with pytest.raises(wire.Undecodable):
            wire.decode_batch(wire.encode_batch(**(good | change), commands=body))  # type: ignore[arg-type]  # as above
    with pytest.raises(wire.Undecodable):
        wire.decode_batch(wire.encode_batch(**good, commands=body + b"\x00"))  # type: ignore[arg-type]  # as above


def test_a_batch_without_commands_is_none() -> None:
    chain = chain_of(bytes(32), 1, 5, b"")
    data = wire.encode_batch(
        partition=0, first_sequence=1, time_us=5, previous_chain=bytes(32), chain=chain, commands=b""
    )
    with pytest.raises(wire.Undecodable):
        wire.decode_batch(data)


def test_a_command_of_no_known_kind() -> None:
    with pytest.raises(wire.Undecodable):
        wire.decode_commands(ev.Commands(commands=[ev.Command()]).SerializeToString())


def test_an_enumeration_out_of_range() -> None:
    raw = ev.Commands(commands=[ev.Command(place=ev.Place(order_id=1))])
    with pytest.raises(wire.Undecodable):
        wire.decode_commands(raw.SerializeToString())
