"""Markets and commands: what stands in the outbox and travels on exchange.orders."""

from collections.abc import Iterable

from common.core import messages as m
from common.core.sequencing import chain_of
from common.wire.shared import ORDER_TYPES, PREVENTIONS, SIDES, TIMES_IN_FORCE, Undecodable
from exchange.v1 import events_pb2 as ev
from exchange.v1 import types_pb2 as ty


def market_to_proto(market: m.Market) -> ty.Market:
    return ty.Market(
        market_id=market.market_id,
        symbol=market.symbol,
        base=ty.Asset(asset_id=market.base.asset_id, symbol=market.base.symbol, scale=market.base.scale),
        quote=ty.Asset(asset_id=market.quote.asset_id, symbol=market.quote.symbol, scale=market.quote.scale),
        partition=market.partition,
        tick_atoms=market.tick_atoms,
        lot_atoms=market.lot_atoms,
        min_notional_atoms=market.min_notional_atoms,
        maker_fee_bps=market.maker_fee_bps,
        taker_fee_bps=market.taker_fee_bps,
        status=ty.MarketStatus.ValueType(market.status),
    )


def market_from_proto(raw: ty.Market) -> m.Market:
    return m.Market(
        market_id=raw.market_id,
        symbol=raw.symbol,
        base=m.Asset(raw.base.asset_id, raw.base.symbol, raw.base.scale),
        quote=m.Asset(raw.quote.asset_id, raw.quote.symbol, raw.quote.scale),
        partition=raw.partition,
        tick_atoms=raw.tick_atoms,
        lot_atoms=raw.lot_atoms,
        min_notional_atoms=raw.min_notional_atoms,
        maker_fee_bps=raw.maker_fee_bps,
        taker_fee_bps=raw.taker_fee_bps,
        status=m.MarketStatus(raw.status),
    )


def encode_commands(commands: Iterable[m.Command]) -> bytes:
    """The bytes that stand in the outbox and that the chain covers."""
    whole = ev.Commands()
    add = whole.commands.add
    for command in commands:
        if isinstance(command, m.Place):
            _fill_place(add().place, command)
        else:
            add().CopyFrom(_command_to_proto(command))
    return whole.SerializeToString()


def decode_commands(data: bytes) -> list[m.Command]:
    try:
        return [_command_from_proto(raw) for raw in ev.Commands.FromString(data).commands]
    except Exception as error:  # protobuf and the enumerations each have errors of their own.
        raise Undecodable(f"commands: {error}") from error


def encode_batch(
    *,
    partition: int,
    first_sequence: int,
    time_us: int,
    previous_chain: bytes,
    chain: bytes,
    commands: bytes,
) -> bytes:
    """A record of exchange.orders, from the columns of an outbox row."""
    return ev.CommandBatch(
        partition=partition,
        first_sequence=first_sequence,
        time_us=time_us,
        previous_chain=previous_chain,
        chain=chain,
        commands=commands,
    ).SerializeToString()


def decode_batch(data: bytes) -> m.Batch:
    """A record of exchange.orders; the chain is checked against the bytes."""
    try:
        raw = ev.CommandBatch.FromString(data)
    except Exception as error:
        raise Undecodable(f"command batch: {error}") from error
    if len(raw.previous_chain) != 32 or raw.first_sequence < 1 or raw.time_us < 0 or not raw.commands:
        raise Undecodable("command batch: it has no place in a sequence")
    if raw.chain != chain_of(raw.previous_chain, raw.first_sequence, raw.time_us, raw.commands):
        raise Undecodable("command batch: its chain does not cover its bytes")
    commands = decode_commands(raw.commands)
    if not commands:
        raise Undecodable("command batch: it has no commands")
    return m.Batch(
        partition=raw.partition,
        first_sequence=raw.first_sequence,
        time_us=raw.time_us,
        previous_chain=raw.previous_chain,
        chain=raw.chain,
        commands=commands,
    )


def _command_to_proto(command: m.Cancel | m.CancelAll | m.SetMarket | m.Noop) -> ev.Command:
    match command:
        case m.Cancel():
            return ev.Command(cancel=ev.Cancel(order_id=command.order_id, user_id=command.user_id))
        case m.CancelAll():
            return ev.Command(cancel_all=ev.CancelAll(user_id=command.user_id, market_id=command.market_id))
        case m.SetMarket():
            return ev.Command(set_market=ev.SetMarket(market=market_to_proto(command.market)))
        case m.Noop():
            return ev.Command(noop=ev.Noop(order_id=command.order_id, reason=command.reason))


# Typed, so that no number is converted for each order.
_SIDE = {side: ty.Side.ValueType(side) for side in m.Side}
_TYPE = {kind: ty.OrderType.ValueType(kind) for kind in m.OrderType}
_TIME_IN_FORCE = {time: ty.TimeInForce.ValueType(time) for time in m.TimeInForce}
_STP = {stp: ty.SelfTradePrevention.ValueType(stp) for stp in m.SelfTradePrevention}


def _fill_place(raw: ev.Place, place: m.Place) -> None:
    """Written where it stands, field by field: that costs less than half of a message put into another."""
    raw.order_id = place.order_id
    raw.user_id = place.user_id
    raw.market_id = place.market_id
    raw.side = _SIDE[place.side]
    raw.type = _TYPE[place.type]
    raw.time_in_force = _TIME_IN_FORCE[place.time_in_force]
    raw.post_only = place.post_only
    raw.stp = _STP[place.stp]
    raw.price_ticks = place.price_ticks
    raw.qty_lots = place.qty_lots
    raw.quote_atoms = place.quote_atoms
    raw.hold_atoms = place.hold_atoms
    raw.client_order_id = place.client_order_id


def _command_from_proto(raw: ev.Command) -> m.Command:
    kind = raw.WhichOneof("command")
    if kind == "place":
        return _place_from_proto(raw.place)
    if kind == "cancel":
        return m.Cancel(raw.cancel.order_id, raw.cancel.user_id)
    if kind == "cancel_all":
        return m.CancelAll(raw.cancel_all.user_id, raw.cancel_all.market_id)
    if kind == "set_market":
        return m.SetMarket(market_from_proto(raw.set_market.market))
    if kind == "noop":
        return m.Noop(raw.noop.order_id, raw.noop.reason)
    raise Undecodable("a command of no known kind")


def _place_from_proto(raw: ev.Place) -> m.Place:
    return m.Place(
        raw.order_id,
        raw.user_id,
        raw.market_id,
        SIDES[raw.side],
        ORDER_TYPES[raw.type],
        TIMES_IN_FORCE[raw.time_in_force],
        raw.post_only,
        PREVENTIONS[raw.stp],
        raw.price_ticks,
        raw.qty_lots,
        raw.quote_atoms,
        raw.hold_atoms,
        raw.client_order_id,
    )
