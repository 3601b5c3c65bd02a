"""What settlements become in the tables: the columns that TX2 writes. Pure.

Each order and each account stands once, however many of the settlements touch it, sorted as TX2 locks
them (I9).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.arrays import Byteas, Column, Int2s, Int4s, Int8s
from common.core import messages as m
from common.core.ledger import Movements, Posting, ledger_entries, movements

Columns = list[Column]


@dataclass(slots=True)
class Rows:
    """`orders`: each as the last of the settlements left it, with the time of that one; by id."""

    settlements: Sequence[m.Settlement]
    orders: list[tuple[m.OrderState, int]]
    moves: Movements

    @property
    def order_ids(self) -> Int8s:
        return Int8s([state.order_id for state, _ in self.orders])

    @property
    def accounts(self) -> list[tuple[int, int]]:
        """(user_id, asset_id) of each account that changes."""
        return [(move.user_id, move.asset_id) for move in self.moves.postings]


def rows_of(settlements: Sequence[m.Settlement], markets: Mapping[int, m.Market]) -> Rows:
    """Raises KeyError for an unknown market, AssertionError for what creates or loses money."""
    last: dict[int, tuple[m.OrderState, int]] = {}
    for batch in settlements:
        time_us = batch.time_us
        for state in batch.orders:
            last[state.order_id] = state, time_us
    return Rows(settlements, [last[order_id] for order_id in sorted(last)], movements(settlements, markets))


def account_keys(accounts: Sequence[tuple[int, int]]) -> Columns:
    return [Int8s([user_id for user_id, _ in accounts]), Int4s([asset_id for _, asset_id in accounts])]


def order_columns(orders: Sequence[tuple[m.OrderState, int]]) -> Columns:
    """order_id, status, reason, filled_lots, filled_quote_atoms, fee_atoms, held_atoms, updated_us."""
    states = [state for state, _ in orders]
    return [
        Int8s([state.order_id for state in states]),
        Int2s([state.status for state in states]),
        Int2s([state.reason for state in states]),
        Int8s([state.filled_lots for state in states]),
        Int8s([state.filled_quote_atoms for state in states]),
        Int8s([state.fee_atoms for state in states]),
        Int8s([state.held_atoms for state in states]),
        Int8s([time_us for _, time_us in orders]),
    ]


def account_columns(moves: Sequence[Posting]) -> Columns:
    """user_id, asset_id, available, held: what is added."""
    return [
        Int8s([move.user_id for move in moves]),
        Int4s([move.asset_id for move in moves]),
        Int8s([move.available_delta_atoms for move in moves]),
        Int8s([move.held_delta_atoms for move in moves]),
    ]


def ledger_columns(moves: Sequence[Posting]) -> Columns:
    """user_id, asset_id, delta_atoms."""
    entries = ledger_entries(moves)
    return [
        Int8s([entry.user_id for entry in entries]),
        Int4s([entry.asset_id for entry in entries]),
        Int8s([entry.delta_atoms for entry in entries]),
    ]


def trade_columns(settlements: Sequence[m.Settlement]) -> Columns:
    """market_id, trade_id, partition, sequence, time_us, price_ticks, qty_lots, taker_side, then maker and
    taker of: order_id, user_id, fee_atoms.
    """
    trades = [trade for batch in settlements for trade in batch.trades]
    return [
        Int4s([trade.market_id for trade in trades]),
        Int8s([trade.trade_id for trade in trades]),
        Int4s([batch.partition for batch in settlements for _ in batch.trades]),
        Int8s([trade.sequence for trade in trades]),
        Int8s([batch.time_us for batch in settlements for _ in batch.trades]),
        Int8s([trade.price_ticks for trade in trades]),
        Int8s([trade.qty_lots for trade in trades]),
        Int2s([trade.taker_side for trade in trades]),
        Int8s([trade.maker_order_id for trade in trades]),
        Int8s([trade.taker_order_id for trade in trades]),
        Int8s([trade.maker_user_id for trade in trades]),
        Int8s([trade.taker_user_id for trade in trades]),
        Int8s([trade.maker_fee_atoms for trade in trades]),
        Int8s([trade.taker_fee_atoms for trade in trades]),
    ]


def market_rows(partition: int, settlements: Sequence[m.Settlement]) -> list[tuple[int, ...]]:
    """Each market as the last of the settlements left it, by id."""
    last = {state.market_id: state for batch in settlements for state in batch.markets}
    return [
        (
            market_id,
            partition,
            int(state.status),
            state.maker_fee_bps,
            state.taker_fee_bps,
            state.next_trade_id,
            state.last_price_ticks,
        )
        for market_id, state in sorted(last.items())
    ]


def digest_columns(settlements: Sequence[m.Settlement]) -> Columns:
    """sequence, market_id, digest."""
    digests = [(batch.last_sequence, each) for batch in settlements for each in batch.digests]
    return [
        Int8s([sequence for sequence, _ in digests]),
        Int4s([each.market_id for _, each in digests]),
        Byteas([each.digest for _, each in digests]),
    ]
