"""Settlements: what the engine made of a batch, in parts when it is large; exchange.settlements."""

from collections.abc import Callable

from common.core import messages as m
from common.wire.shared import ORDER_STATUSES, PART_BYTES, REASONS, SIDES, Made, Undecodable
from exchange.v1 import events_pb2 as ev
from exchange.v1 import types_pb2 as ty


def encode_settlement(settlement: m.Settlement) -> bytes:
    raw = ev.Settlement(
        partition=settlement.partition,
        first_sequence=settlement.first_sequence,
        last_sequence=settlement.last_sequence,
        time_us=settlement.time_us,
        previous_chain=settlement.previous_chain,
        chain=settlement.chain,
        engine_version=settlement.engine_version,
        markets=[_market_state_to_proto(state) for state in settlement.markets],
        digests=[ev.BookDigest(market_id=each.market_id, digest=each.digest) for each in settlement.digests],
    )
    add_trade, add_order = raw.trades.add, raw.orders.add
    for trade in settlement.trades:
        _make_trade(add_trade, trade)
    for state in settlement.orders:
        make_state(add_order, state)
    return raw.SerializeToString()


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
            [m.BookDigest(each.market_id, each.digest) for each in raw.digests],
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


def _make_trade(make: Callable[..., Made], trade: m.Trade) -> Made:
    return make(
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
        SIDES[raw.taker_side],
        raw.maker_order_id,
        raw.taker_order_id,
        raw.maker_user_id,
        raw.taker_user_id,
        raw.maker_fee_atoms,
        raw.taker_fee_atoms,
    )


def order_state_to_proto(state: m.OrderState) -> ev.OrderState:
    return make_state(ev.OrderState, state)


def make_state(make: Callable[..., Made], state: m.OrderState) -> Made:
    return make(
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
        SIDES[raw.side],
        ORDER_STATUSES[raw.status],
        REASONS[raw.reason],
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
