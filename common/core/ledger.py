"""From a settlement to the movements of money, and to the double-entry ledger.

For each trade the buyer pays quote atoms out of its hold and receives base atoms less its fee, the
seller pays base out of its hold and receives quote less its fee, and the fees go to the partition's
fee account. What an order gives back moves from held to available of the same account.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from common.core.messages import Market, Settlement, Side


@dataclass(slots=True, frozen=True)
class Posting:
    """What one settlement adds to one account; either delta may be negative."""

    user_id: int
    asset_id: int
    available_delta_atoms: int
    held_delta_atoms: int


@dataclass(slots=True, frozen=True)
class LedgerEntry:
    """What one settlement adds to what a user owns of an asset, available or held; never 0."""

    user_id: int
    asset_id: int
    delta_atoms: int


def fee_user_id(partition: int) -> int:
    """The user whose accounts collect a partition's fees."""
    return -(partition + 1)


def postings(settlement: Settlement, markets: Mapping[int, Market]) -> list[Posting]:
    """One posting for each account that changes, sorted by (user_id, asset_id).

    They sum to zero in every asset. KeyError when a market of the settlement is not in `markets`.
    """
    available: dict[tuple[int, int], int] = {}
    held: dict[tuple[int, int], int] = {}
    _add_trades(settlement, markets, available, held)
    for order in settlement.orders:
        if order.released_atoms:
            market = markets[order.market_id]
            paying = market.quote if order.side is Side.BUY else market.base
            account = order.user_id, paying.asset_id
            available[account] = available.get(account, 0) + order.released_atoms
            held[account] = held.get(account, 0) - order.released_atoms
    result = [
        Posting(user_id, asset_id, available.get((user_id, asset_id), 0), held.get((user_id, asset_id), 0))
        for user_id, asset_id in sorted(available.keys() | held.keys())
    ]
    assert _sums_to_zero(result), "a settlement neither creates nor loses an atom"
    return [one for one in result if one.available_delta_atoms or one.held_delta_atoms]


def ledger_entries(movements: Iterable[Posting]) -> list[LedgerEntry]:
    """The changes of ownership in postings, in their order; they sum to zero in every asset."""
    return [
        LedgerEntry(one.user_id, one.asset_id, one.available_delta_atoms + one.held_delta_atoms)
        for one in movements
        if one.available_delta_atoms + one.held_delta_atoms
    ]


def _add_trades(
    settlement: Settlement,
    markets: Mapping[int, Market],
    available: dict[tuple[int, int], int],
    held: dict[tuple[int, int], int],
) -> None:
    fee_user = fee_user_id(settlement.partition)
    for trade in settlement.trades:
        market = markets[trade.market_id]
        base_atoms = trade.qty_lots * market.lot_atoms
        quote_atoms = trade.price_ticks * trade.qty_lots * market.atoms_per_tick_lot
        if trade.taker_side is Side.BUY:
            buyer, buyer_fee, seller, seller_fee = (
                trade.taker_user_id, trade.taker_fee_atoms, trade.maker_user_id, trade.maker_fee_atoms,
            )  # fmt: skip
        else:
            buyer, buyer_fee, seller, seller_fee = (
                trade.maker_user_id, trade.maker_fee_atoms, trade.taker_user_id, trade.taker_fee_atoms,
            )  # fmt: skip
        base_id, quote_id = market.base.asset_id, market.quote.asset_id
        for totals, user_id, asset_id, atoms in (
            (held, buyer, quote_id, -quote_atoms),
            (held, seller, base_id, -base_atoms),
            (available, buyer, base_id, base_atoms - buyer_fee),
            (available, seller, quote_id, quote_atoms - seller_fee),
            (available, fee_user, base_id, buyer_fee),
            (available, fee_user, quote_id, seller_fee),
        ):
            totals[user_id, asset_id] = totals.get((user_id, asset_id), 0) + atoms


def _sums_to_zero(movements: Iterable[Posting]) -> bool:
    totals: dict[int, int] = {}
    for one in movements:
        delta_atoms = one.available_delta_atoms + one.held_delta_atoms
        totals[one.asset_id] = totals.get(one.asset_id, 0) + delta_atoms
    return not any(totals.values())
