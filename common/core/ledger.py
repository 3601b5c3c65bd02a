"""From a settlement to the movements of money, and to the double-entry ledger.

For each trade the buyer pays quote atoms out of its hold and receives base atoms less its fee, the
seller pays base out of its hold and receives quote less its fee, and the fees go to the partition's
fee account. What an order gives back moves from held to available of the same account.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from common.core.messages import Market, Settlement, Side

# Reading an enumeration's member through its class costs more than a dict look-up; these are hot.
_BUY: Final = Side.BUY

_Account = tuple[int, int]  # (user_id, asset_id)


@dataclass(slots=True)
class Posting:
    """What settlements add to one account; either delta may be negative."""

    user_id: int
    asset_id: int
    available_delta_atoms: int
    held_delta_atoms: int


@dataclass(slots=True)
class LedgerEntry:
    """What settlements add to what a user owns of an asset, available or held; never 0."""

    user_id: int
    asset_id: int
    delta_atoms: int


@dataclass(slots=True)
class Movements:
    """What settlements do: to each account, sorted by (user_id, asset_id), and to the hold of each order.

    `unheld_atoms`: what trades took out of an order's hold and what went back to its owner.
    """

    postings: list[Posting]
    unheld_atoms: dict[int, int]


def fee_user_id(partition: int) -> int:
    """The user whose accounts collect a partition's fees."""
    return -(partition + 1)


def postings(settlement: Settlement, markets: Mapping[int, Market]) -> list[Posting]:
    """One posting for each account that changes, sorted by (user_id, asset_id).

    They sum to zero in every asset. KeyError when a market of the settlement is not in `markets`.
    """
    return movements([settlement], markets).postings


def movements(settlements: Sequence[Settlement], markets: Mapping[int, Market]) -> Movements:
    """Several settlements as one: one posting for each account that any of them changes.

    The postings of each settlement, and so of all, sum to zero in every asset. KeyError when a market is
    not in `markets`.
    """
    units = _Units(markets)
    totals: dict[_Account, list[int]] = {}
    unheld: dict[int, int] = {}
    for settlement in settlements:
        available: dict[_Account, int] = {}
        held: dict[_Account, int] = {}
        _add_trades(settlement, units, available, held, unheld)
        _add_releases(settlement, units, available, held, unheld)
        assert _sums_to_zero(available, held), "a settlement neither creates nor loses an atom"
        for index, deltas in enumerate((available, held)):
            for account, delta_atoms in deltas.items():
                if delta_atoms:
                    totals.setdefault(account, [0, 0])[index] += delta_atoms
    return Movements([Posting(*account, *totals[account]) for account in sorted(totals)], unheld)


def ledger_entries(movements: Iterable[Posting]) -> list[LedgerEntry]:
    """The changes of ownership in postings, in their order; they sum to zero in every asset."""
    return [
        LedgerEntry(one.user_id, one.asset_id, one.available_delta_atoms + one.held_delta_atoms)
        for one in movements
        if one.available_delta_atoms + one.held_delta_atoms
    ]


class _Units:
    """What trades are reckoned with, of each market that is met; KeyError for one that is not there."""

    __slots__ = ("_known", "_markets")

    def __init__(self, markets: Mapping[int, Market]) -> None:
        self._markets = markets
        self._known: dict[int, tuple[int, int, int, int]] = {}

    def of(self, market_id: int) -> tuple[int, int, int, int]:
        """lot_atoms, atoms_per_tick_lot, and the ids of the assets, base and quote."""
        units = self._known.get(market_id)
        if units is None:
            market = self._markets[market_id]
            units = market.lot_atoms, market.atoms_per_tick_lot, market.base.asset_id, market.quote.asset_id
            self._known[market_id] = units
        return units


def _add_trades(
    settlement: Settlement,
    units: _Units,
    available: dict[_Account, int],
    held: dict[_Account, int],
    unheld: dict[int, int],
) -> None:
    fee_user = fee_user_id(settlement.partition)
    for trade in settlement.trades:
        lot_atoms, atoms_per_tick_lot, base_id, quote_id = units.of(trade.market_id)
        base_atoms = trade.qty_lots * lot_atoms
        quote_atoms = trade.price_ticks * trade.qty_lots * atoms_per_tick_lot
        taker, maker = trade.taker_order_id, trade.maker_order_id
        if trade.taker_side is _BUY:
            buyer, buyer_fee, seller, seller_fee = (
                trade.taker_user_id, trade.taker_fee_atoms, trade.maker_user_id, trade.maker_fee_atoms,
            )  # fmt: skip
            buy, sell = taker, maker
        else:
            buyer, buyer_fee, seller, seller_fee = (
                trade.maker_user_id, trade.maker_fee_atoms, trade.taker_user_id, trade.taker_fee_atoms,
            )  # fmt: skip
            buy, sell = maker, taker
        unheld[buy] = unheld.get(buy, 0) + quote_atoms
        unheld[sell] = unheld.get(sell, 0) + base_atoms
        for totals, user_id, asset_id, atoms in (
            (held, buyer, quote_id, -quote_atoms),
            (held, seller, base_id, -base_atoms),
            (available, buyer, base_id, base_atoms - buyer_fee),
            (available, seller, quote_id, quote_atoms - seller_fee),
            (available, fee_user, base_id, buyer_fee),
            (available, fee_user, quote_id, seller_fee),
        ):
            totals[user_id, asset_id] = totals.get((user_id, asset_id), 0) + atoms


def _add_releases(
    settlement: Settlement,
    units: _Units,
    available: dict[_Account, int],
    held: dict[_Account, int],
    unheld: dict[int, int],
) -> None:
    for order in settlement.orders:
        released_atoms = order.released_atoms
        if released_atoms:
            _, _, base_id, quote_id = units.of(order.market_id)
            account = order.user_id, quote_id if order.side is _BUY else base_id
            available[account] = available.get(account, 0) + released_atoms
            held[account] = held.get(account, 0) - released_atoms
            unheld[order.order_id] = unheld.get(order.order_id, 0) + released_atoms


def _sums_to_zero(*changes: Mapping[_Account, int]) -> bool:
    totals: dict[int, int] = {}
    for deltas in changes:
        for (_, asset_id), delta_atoms in deltas.items():
            totals[asset_id] = totals.get(asset_id, 0) + delta_atoms
    return not any(totals.values())
