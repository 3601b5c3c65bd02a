"""The values of `common.core.messages` as the bytes of `proto/exchange/v1` and back.

The bytes are a pure function of the values (no maps, fields in order), which the hash chain and the
comparison of replays rely on.
"""

from collections.abc import Iterable, Iterator, Sequence

from common.core import messages as m
from common.core.sequencing import chain_of
from exchange.v1 import events_pb2 as ev
from exchange.v1 import market_data_pb2 as md
from exchange.v1 import types_pb2 as ty

PART_BYTES = 1 << 20


class Undecodable(ValueError):
    """The bytes are not what their topic carries."""


# ---- markets ------------------------------------------------------------------------------------


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


# ---- commands -----------------------------------------------------------------------------------


def encode_commands(commands: Iterable[m.Command]) -> bytes:
    """The bytes that stand in the outbox and that the chain covers."""
    return ev.Commands(commands=[_command_to_proto(command) for command in commands]).SerializeToString()


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
    return m.Batch(
        partition=raw.partition,
        first_sequence=raw.first_sequence,
        time_us=raw.time_us,
        previous_chain=raw.previous_chain,
        chain=raw.chain,
        commands=decode_commands(raw.commands),
    )


def _command_to_proto(command: m.Command) -> ev.Command:
    match command:
        case m.Place():
            return ev.Command(place=_place_to_proto(command))
        case m.Cancel():
            return ev.Command(cancel=ev.Cancel(order_id=command.order_id, user_id=command.user_id))
        case m.CancelAll():
            return ev.Command(cancel_all=ev.CancelAll(user_id=command.user_id, market_id=command.market_id))
        case m.SetMarket():
            return ev.Command(set_market=ev.SetMarket(market=market_to_proto(command.market)))
        case m.Noop():
            return ev.Command(noop=ev.Noop(order_id=command.order_id, reason=command.reason))


def _place_to_proto(place: m.Place) -> ev.Place:
    return ev.Place(
        order_id=place.order_id,
        user_id=place.user_id,
        market_id=place.market_id,
        side=ty.Side.ValueType(place.side),
        type=ty.OrderType.ValueType(place.type),
        time_in_force=ty.TimeInForce.ValueType(place.time_in_force),
        post_only=place.post_only,
        stp=ty.SelfTradePrevention.ValueType(place.stp),
        price_ticks=place.price_ticks,
        qty_lots=place.qty_lots,
        quote_atoms=place.quote_atoms,
        hold_atoms=place.hold_atoms,
        client_order_id=place.client_order_id,
    )


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
        m.Side(raw.side),
        m.OrderType(raw.type),
        m.TimeInForce(raw.time_in_force),
        raw.post_only,
        m.SelfTradePrevention(raw.stp),
        raw.price_ticks,
        raw.qty_lots,
        raw.quote_atoms,
        raw.hold_atoms,
        raw.client_order_id,
    )


# ---- settlements --------------------------------------------------------------------------------


def encode_settlement(settlement: m.Settlement) -> bytes:
    return ev.Settlement(
        partition=settlement.partition,
        first_sequence=settlement.first_sequence,
        last_sequence=settlement.last_sequence,
        time_us=settlement.time_us,
        previous_chain=settlement.previous_chain,
        chain=settlement.chain,
        engine_version=settlement.engine_version,
        trades=[_trade_to_proto(trade) for trade in settlement.trades],
        orders=[order_state_to_proto(state) for state in settlement.orders],
        markets=[_market_state_to_proto(state) for state in settlement.markets],
    ).SerializeToString()


def decode_settlement(data: bytes) -> m.Settlement:
    try:
        raw = ev.Settlement.FromString(data)
        return m.Settlement(
            raw.partition,
            raw.first_sequence,
            raw.last_sequence,
            raw.time_us,
            raw.previous_chain,
            raw.chain,
            raw.engine_version,
            [_trade_from_proto(trade) for trade in raw.trades],
            [order_state_from_proto(state) for state in raw.orders],
            [_market_state_from_proto(state) for state in raw.markets],
        )
    except Exception as error:
        raise Undecodable(f"settlement: {error}") from error


def settlement_parts(settlement: m.Settlement, part_bytes: int = PART_BYTES) -> list[bytes]:
    """The records of exchange.settlements for one batch; one when it fits into `part_bytes`."""
    body = encode_settlement(settlement)
    slices = [body[at : at + part_bytes] for at in range(0, len(body), part_bytes)] or [b""]
    return [
        ev.SettlementPart(
            first_sequence=settlement.first_sequence, part=index, parts=len(slices), body=piece
        ).SerializeToString()
        for index, piece in enumerate(slices)
    ]


class SettlementJoiner:
    """Puts parts together again. A first part starts over; one that does not follow is passed over."""

    def __init__(self) -> None:
        self._first_sequence = 0
        self._token = 0
        self._pieces: list[bytes] = []

    @property
    def pending(self) -> bool:
        """True while parts wait for the rest of their settlement."""
        return bool(self._pieces)

    def add(self, data: bytes, token: int) -> m.Settlement | None:
        """The settlement when this was its last part; parts of different leaders are never mixed."""
        try:
            part = ev.SettlementPart.FromString(data)
        except Exception as error:
            raise Undecodable(f"settlement part: {error}") from error
        if part.part == 0:
            self._first_sequence, self._token, self._pieces = part.first_sequence, token, []
        elif (part.first_sequence, token) != (self._first_sequence, self._token):
            return None  # An old leader's last words among those of the new one.
        if part.part != len(self._pieces):
            self._pieces = []
            return None  # Its beginning was never seen; the leader sends it whole again.
        self._pieces.append(part.body)
        if len(self._pieces) < part.parts:
            return None
        body, self._pieces = b"".join(self._pieces), []
        return decode_settlement(body)


def _trade_to_proto(trade: m.Trade) -> ev.Trade:
    return ev.Trade(
        market_id=trade.market_id,
        trade_id=trade.trade_id,
        sequence=trade.sequence,
        price_ticks=trade.price_ticks,
        qty_lots=trade.qty_lots,
        taker_side=ty.Side.ValueType(trade.taker_side),
        maker_order_id=trade.maker_order_id,
        taker_order_id=trade.taker_order_id,
        maker_user_id=trade.maker_user_id,
        taker_user_id=trade.taker_user_id,
        maker_fee_atoms=trade.maker_fee_atoms,
        taker_fee_atoms=trade.taker_fee_atoms,
    )


def _trade_from_proto(raw: ev.Trade) -> m.Trade:
    return m.Trade(
        raw.market_id,
        raw.trade_id,
        raw.sequence,
        raw.price_ticks,
        raw.qty_lots,
        m.Side(raw.taker_side),
        raw.maker_order_id,
        raw.taker_order_id,
        raw.maker_user_id,
        raw.taker_user_id,
        raw.maker_fee_atoms,
        raw.taker_fee_atoms,
    )


def order_state_to_proto(state: m.OrderState) -> ev.OrderState:
    return ev.OrderState(
        order_id=state.order_id,
        user_id=state.user_id,
        market_id=state.market_id,
        client_order_id=state.client_order_id,
        side=ty.Side.ValueType(state.side),
        status=ty.OrderStatus.ValueType(state.status),
        reason=ty.Reason.ValueType(state.reason),
        filled_lots=state.filled_lots,
        filled_quote_atoms=state.filled_quote_atoms,
        fee_atoms=state.fee_atoms,
        held_atoms=state.held_atoms,
        released_atoms=state.released_atoms,
        sequence=state.sequence,
    )


def order_state_from_proto(raw: ev.OrderState) -> m.OrderState:
    return m.OrderState(
        raw.order_id,
        raw.user_id,
        raw.market_id,
        raw.client_order_id,
        m.Side(raw.side),
        m.OrderStatus(raw.status),
        m.Reason(raw.reason),
        raw.filled_lots,
        raw.filled_quote_atoms,
        raw.fee_atoms,
        raw.held_atoms,
        raw.released_atoms,
        raw.sequence,
    )


def _market_state_to_proto(state: m.MarketState) -> ev.MarketState:
    return ev.MarketState(
        market_id=state.market_id,
        status=ty.MarketStatus.ValueType(state.status),
        maker_fee_bps=state.maker_fee_bps,
        taker_fee_bps=state.taker_fee_bps,
        next_trade_id=state.next_trade_id,
        last_price_ticks=state.last_price_ticks,
    )


def _market_state_from_proto(raw: ev.MarketState) -> m.MarketState:
    return m.MarketState(
        raw.market_id,
        m.MarketStatus(raw.status),
        raw.maker_fee_bps,
        raw.taker_fee_bps,
        raw.next_trade_id,
        raw.last_price_ticks,
    )


# ---- what market-data reads ---------------------------------------------------------------------


def encode_trades(*, partition: int, last_sequence: int, trades: Sequence[m.Trade], time_us: int) -> bytes:
    """A record of exchange.trades: the public half of a batch's trades."""
    return ev.TradeBatch(
        partition=partition,
        last_sequence=last_sequence,
        trades=[public_trade(trade, time_us) for trade in trades],
    ).SerializeToString()


def decode_trades(data: bytes) -> ev.TradeBatch:
    try:
        return ev.TradeBatch.FromString(data)
    except Exception as error:
        raise Undecodable(f"trades: {error}") from error


def public_trade(trade: m.Trade, time_us: int) -> md.PublicTrade:
    return md.PublicTrade(
        market_id=trade.market_id,
        trade_id=trade.trade_id,
        price_ticks=trade.price_ticks,
        qty_lots=trade.qty_lots,
        taker_side=ty.Side.ValueType(trade.taker_side),
        time_us=time_us,
    )


def encode_book(update: m.BookUpdate) -> bytes:
    return ev.BookUpdate(
        market_id=update.market_id,
        full=update.full,
        sequence=update.sequence,
        previous=update.previous,
        last_trade_id=update.last_trade_id,
        bids=[md.Level(price_ticks=price, qty_lots=qty) for price, qty in update.bids],
        asks=[md.Level(price_ticks=price, qty_lots=qty) for price, qty in update.asks],
        time_us=update.time_us,
    ).SerializeToString()


def decode_book(data: bytes) -> m.BookUpdate:
    try:
        raw = ev.BookUpdate.FromString(data)
    except Exception as error:
        raise Undecodable(f"book update: {error}") from error
    return m.BookUpdate(
        raw.market_id,
        raw.full,
        raw.sequence,
        raw.previous,
        raw.last_trade_id,
        [(level.price_ticks, level.qty_lots) for level in raw.bids],
        [(level.price_ticks, level.qty_lots) for level in raw.asks],
        raw.time_us,
    )


def encode_order_updates(
    settlement: m.Settlement, markets: dict[int, m.Market], part_bytes: int = PART_BYTES
) -> Iterator[bytes]:
    """The records of exchange.order_updates: a pure function of the settlement (I11).

    A sweep has more orders than a record may carry: each part has the next of them, by id, and is closed
    when it passes `part_bytes`. None when the settlement touches no order.
    """
    fills = fills_by_order(settlement.trades, markets, settlement.time_us)
    part: list[ev.UserOrderUpdate] = []
    size_bytes = 0
    for state in settlement.orders:
        part.append(
            ev.UserOrderUpdate(state=order_state_to_proto(state), fills=fills.get(state.order_id, ()))
        )
        size_bytes += part[-1].ByteSize()
        if size_bytes >= part_bytes:
            yield _updates_part(settlement, part)
            part, size_bytes = [], 0
    if part:
        yield _updates_part(settlement, part)


def _updates_part(settlement: m.Settlement, orders: Sequence[ev.UserOrderUpdate]) -> bytes:
    return ev.OrderUpdates(
        partition=settlement.partition,
        first_sequence=settlement.first_sequence,
        last_sequence=settlement.last_sequence,
        time_us=settlement.time_us,
        orders=orders,
    ).SerializeToString()


def decode_order_updates(data: bytes) -> ev.OrderUpdates:
    try:
        return ev.OrderUpdates.FromString(data)
    except Exception as error:
        raise Undecodable(f"order updates: {error}") from error


def fills_by_order(
    trades: Iterable[m.Trade], markets: dict[int, m.Market], time_us: int
) -> dict[int, list[ty.Fill]]:
    """Both sides of every trade, oldest first, by the order that they belong to."""
    fills: dict[int, list[ty.Fill]] = {}
    for trade in trades:
        for liquidity in (m.Liquidity.MAKER, m.Liquidity.TAKER):
            fill = fill_of(trade, liquidity, markets[trade.market_id], time_us)
            fills.setdefault(fill.order_id, []).append(fill)
    return fills


def fill_of(trade: m.Trade, liquidity: m.Liquidity, market: m.Market, time_us: int) -> ty.Fill:
    """One side of a trade; its fee is of what that side receives."""
    taker = liquidity == m.Liquidity.TAKER
    buys = (trade.taker_side == m.Side.BUY) == taker
    return ty.Fill(
        trade_id=trade.trade_id,
        order_id=trade.taker_order_id if taker else trade.maker_order_id,
        market_id=trade.market_id,
        side=ty.SIDE_BUY if buys else ty.SIDE_SELL,
        price_ticks=trade.price_ticks,
        qty_lots=trade.qty_lots,
        fee_atoms=trade.taker_fee_atoms if taker else trade.maker_fee_atoms,
        fee_asset_id=market.base.asset_id if buys else market.quote.asset_id,
        liquidity=ty.Liquidity.ValueType(liquidity),
        time_us=time_us,
    )
