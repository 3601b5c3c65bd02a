"""Restoring at any watermark, and other batch boundaries, change nothing that is settled."""

from copy import deepcopy
from random import Random
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from common.core import engine as engine_module
from common.core.engine import Engine
from common.core.messages import Applied, Batch, BookUpdate, Command, OrderState, Snapshot, Trade
from common.core.views import DepthView
from tests.property.flows import SIZES, batches, commands

EXAMPLES = 120


@settings(max_examples=EXAMPLES)
@given(commands(), SIZES, st.randoms(use_true_random=False))
def test_a_restored_engine_settles_as_the_first_did(
    flow: list[Command], sizes: list[int], random: Random
) -> None:
    with patch.object(engine_module, "DIGEST_EVERY", 3):  # So that they are compared too.
        _check_restored(batches(flow, sizes), random)


def _check_restored(log: list[Batch], random: Random) -> None:
    engine = Engine(0)
    snapshots = [engine.snapshot()]
    settled = []
    for batch in log:
        settled.append(engine.apply(batch).settlement)
        snapshots.append(engine.snapshot())
    for watermark, snapshot in enumerate(snapshots):
        shuffled = deepcopy(snapshot)
        random.shuffle(shuffled.orders)
        restored = Engine(0)
        restored.restore(shuffled)
        assert restored.snapshot() == snapshot
        in_order = Engine(0)
        in_order.restore(snapshot)
        assert in_order.snapshot() == snapshot
        assert [restored.apply(batch).settlement for batch in log[watermark:]] == settled[watermark:]
        assert restored.snapshot() == snapshots[-1]


@settings(max_examples=EXAMPLES)
@given(commands(), SIZES)
def test_batch_boundaries_do_not_change_what_happens(flow: list[Command], sizes: list[int]) -> None:
    one, cut = Engine(0), Engine(0)
    whole = [one.apply(batch) for batch in batches(flow, [len(flow)])]
    parts = [cut.apply(batch) for batch in batches(flow, sizes)]
    assert _trades(whole) == _trades(parts)
    assert _final_orders(whole) == _final_orders(parts)
    assert _without_envelope(one.snapshot()) == _without_envelope(cut.snapshot())


@settings(max_examples=EXAMPLES)
@given(commands(), SIZES, st.integers(0, 60))
def test_updates_chain_and_give_the_same_books(flow: list[Command], sizes: list[int], takeover: int) -> None:
    """A reader that only applies what is published has the engine's books, also across a takeover."""
    engine, views = Engine(0), dict[int, DepthView]()
    for count, batch in enumerate(batches(flow, sizes)):
        if count == takeover:
            snapshot, engine = engine.snapshot(), Engine(0)
            engine.restore(snapshot)
            _read(views, engine.books())
        _read(views, engine.apply(batch).books)
        for book in engine.books():
            view = views[book.market_id]
            assert view.synced
            assert view.top(1_000) == (book.bids, book.asks)
            assert view.last_trade_id == book.last_trade_id
            assert view.sequence == book.sequence


def _read(views: dict[int, DepthView], updates: list[BookUpdate]) -> None:
    for update in updates:
        view = views.setdefault(update.market_id, DepthView(update.market_id))
        assert not view.apply(update), "a gap"
        assert not view.apply(update), "a repeat is no gap"


def _trades(applied: list[Applied]) -> list[Trade]:
    return [trade for one in applied for trade in one.settlement.trades]


def _final_orders(applied: list[Applied]) -> dict[int, OrderState]:
    """Each order as the last batch that touched it left it, with what all batches released."""
    final: dict[int, OrderState] = {}
    for one in applied:
        for state in one.settlement.orders:
            before = final.get(state.order_id)
            final[state.order_id] = deepcopy(state)
            final[state.order_id].released_atoms += before.released_atoms if before else 0
    return final


def _without_envelope(snapshot: Snapshot) -> Snapshot:
    snapshot.chain, snapshot.time_us = b"", 0
    return snapshot
