"""Every atom, after every batch: what is held, what is owned, and what the fees took (DESIGN I10)."""

from collections import Counter

from hypothesis import given, settings

from common.core.engine import Engine
from common.core.ledger import fee_user_id, ledger_entries, movements, postings
from common.core.messages import Batch, Command, Place, SetMarket, Settlement, Side
from tests.property.flows import SIZES, batches, commands, market

START_ATOMS = 10**9
MARKETS = {1: market(1), 2: market(2)}
Accounts = Counter[tuple[int, int]]


@settings(max_examples=200)
@given(commands(), SIZES)
def test_no_atom_is_made_lost_or_held_in_vain(flow: list[Command], sizes: list[int]) -> None:
    engine = Engine(0)
    available: Accounts = Counter(
        {(user, asset): START_ATOMS for user in (1, 2, 3, 4) for asset in (1, 2, 3)}
    )
    held: Accounts = Counter()
    owned = Counter(available)
    for batch in batches(flow, sizes):
        _hold(batch, available, held)
        moved = postings(engine.apply(batch).settlement, MARKETS)
        accounts = [(one.user_id, one.asset_id) for one in moved]
        assert accounts == sorted(set(accounts))
        for one in moved:
            available[one.user_id, one.asset_id] += one.available_delta_atoms
            held[one.user_id, one.asset_id] += one.held_delta_atoms
        entries = ledger_entries(moved)
        for entry in entries:
            owned[entry.user_id, entry.asset_id] += entry.delta_atoms
        for asset in (1, 2, 3):
            assert sum(entry.delta_atoms for entry in entries if entry.asset_id == asset) == 0
            everything = sum(atoms for (_, of), atoms in (available + held).items() if of == asset)
            assert everything == 4 * START_ATOMS
        assert min(available.values()) >= 0
        assert +held == _held_by_live_orders(engine)
        assert +(available + held) == +owned
        assert all(atoms == 0 for (user, _), atoms in held.items() if user == fee_user_id(0))


@settings(max_examples=100)
@given(commands(), SIZES)
def test_settlements_together_move_what_they_move_one_by_one(flow: list[Command], sizes: list[int]) -> None:
    engine = Engine(0)
    settlements = [engine.apply(batch).settlement for batch in batches(flow, sizes)]
    together = movements(settlements, MARKETS)
    sums: dict[tuple[int, int], list[int]] = {}
    for settlement in settlements:
        for one in postings(settlement, MARKETS):
            total = sums.setdefault((one.user_id, one.asset_id), [0, 0])
            total[0] += one.available_delta_atoms
            total[1] += one.held_delta_atoms
    assert [
        ((one.user_id, one.asset_id), [one.available_delta_atoms, one.held_delta_atoms])
        for one in together.postings
    ] == sorted(sums.items())
    placed = {one.order_id: one for one in flow if isinstance(one, Place)}
    for order_id, held_atoms in _held_at_last(settlements).items():
        unheld = _unheld(settlements, placed[order_id])
        assert together.unheld_atoms.get(order_id, 0) == unheld == placed[order_id].hold_atoms - held_atoms


def _held_at_last(settlements: list[Settlement]) -> dict[int, int]:
    return {state.order_id: state.held_atoms for one in settlements for state in one.orders}


def _unheld(settlements: list[Settlement], place: Place) -> int:
    """Paid by its own trades and given back: read off one order alone, from its place and its states."""
    own = [state for one in settlements for state in one.orders if state.order_id == place.order_id]
    last, market = own[-1], MARKETS[place.market_id]
    paid = last.filled_quote_atoms if place.side is Side.BUY else last.filled_lots * market.lot_atoms
    return paid + sum(state.released_atoms for state in own)


def _hold(batch: Batch, available: Accounts, held: Accounts) -> None:
    """What TX1 does for each order."""
    for command in batch.commands:
        assert not isinstance(command, SetMarket) or command.market.market_id in MARKETS
        if isinstance(command, Place):
            account = command.user_id, _paying(command.market_id, command.side)
            available[account] -= command.hold_atoms
            held[account] += command.hold_atoms


def _paying(market_id: int, side: Side) -> int:
    units = MARKETS[market_id]
    return (units.quote if side is Side.BUY else units.base).asset_id


def _held_by_live_orders(engine: Engine) -> Accounts:
    held: Accounts = Counter()
    for order in engine.snapshot().orders:
        held[order.user_id, _paying(order.market_id, order.side)] += order.held_atoms
    return held
