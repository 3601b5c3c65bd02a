"""The replay of a real history comes out the same, and finds every row that somebody has changed."""

import pytest

from common.core import messages as m
from common.core.differences import Difference
from common.core.engine import Engine
from common.replay import Report, replay, replay_within
from tests.integration.order_service.desk import Desk

pytestmark = pytest.mark.anyio


async def _replay(desk: Desk, seed: int = 1, points: int = 2) -> Report:
    return await replay(desk.connection, points=points, seed=seed, progress=print)


async def test_a_history_comes_out_the_same_from_any_point(history: Desk, seed: int) -> None:
    report = await _replay(history, seed, points=25)
    assert report.differences.first == []
    assert report.ok
    assert len(report.partitions) == 4
    assert sum(len(one.points) for one in report.partitions) == 25
    assert all(one.complete for one in report.partitions)
    assert all(one.waiting > 0 for one in report.partitions[:2]), "something waits above the watermark"
    [(orders, trades)] = await history.rows(
        "SELECT (SELECT count(*) FROM orders JOIN watermarks w USING (partition)"
        " WHERE orders.sequence <= w.sequence), (SELECT count(*) FROM trades)"
    )
    assert (report.orders, sum(one.trades for one in report.partitions)) == (orders, trades)
    assert trades > 50
    assert report.command_bytes > 20 * orders
    assert 0 < report.archived_orders < report.archived_commands < report.commands
    assert report.digests > 0


async def test_the_same_seed_draws_the_same_points(history: Desk) -> None:
    first, again, other = [await _replay(history, seed, points=8) for seed in (5, 5, 6)]
    points = [[one.points for one in report.partitions] for report in (first, again, other)]
    assert points[0] == points[1] != points[2]


async def _replay_changed(desk: Desk, *changes: str) -> Report:
    """The replay with these statements run before it, and rolled back after it."""
    await desk.connection.execute(b"BEGIN")
    try:
        for change in changes:
            cursor = await desk.connection.execute(change.encode())
            assert cursor.rowcount > 0, "the change changes something"
        return await replay_within(desk.connection, points=2, seed=1, progress=print)
    finally:
        await desk.connection.execute(b"ROLLBACK")


def _named(report: Report, what: str) -> Difference:
    names = [one.what for one in report.differences.first]
    assert what in names
    return report.differences.first[names.index(what)]


CHANGES = [
    ("trades", "(market_id, trade_id) = (1, 7)", "price_ticks = price_ticks + 1", "trade 7 of market 1",
     "price_ticks"),
    ("trades", "(market_id, trade_id) = (2, 3)", "maker_fee_atoms = maker_fee_atoms - 1",
     "trade 3 of market 2", "maker_fee_atoms"),
    ("trades", "(market_id, trade_id) = (2, 4)", "trade_id = 99999", "trade 4 of market 2", "trade_id"),
    ("trades", "(market_id, trade_id) = (2, 4)", "partition = 0", "trade 4 of market 2", "trade_id"),
    ("trades", "(market_id, trade_id) = (1, 6)", "sequence = 99999", "trade 6 of market 1", "trade_id"),
    ("orders", "order_id = (SELECT min(order_id) FROM orders WHERE status = 4)", "filled_lots = 1",
     "order {}", "filled_lots"),
    ("orders", "order_id = (SELECT min(order_id) FROM orders WHERE status = 5)",
     "updated_us = updated_us + 1", "order {}", "updated_us"),
    ("orders", "order_id = (SELECT max(order_id) FROM orders WHERE status = 3 OR status = 2)",
     "stp = 1 + stp % 3", "order {}", "stp"),
    ("orders", "order_id = (SELECT min(order_id) FROM orders WHERE status = 2)", "status = 5",
     "order {}", "status"),
    ("orders", "order_id = (SELECT min(order_id) FROM orders WHERE status = 2)",
     "held_atoms = held_atoms + 1", "the state restored from the database: live order {}", "held_atoms"),
    ("orders", "order_id = (SELECT min(order_id) FROM orders WHERE status = 4)", "price_ticks = 1",
     "order {}", "price_ticks"),
    ("market_states", "market_id = 2", "taker_fee_bps = taker_fee_bps + 1",
     "the state restored from the database: market 2", "taker_fee_bps"),
    ("market_states", "market_id = 1", "next_trade_id = next_trade_id + 1",
     "the state restored from the database: state of market 1", "next_trade_id"),
    ("book_digests", "(partition, market_id) = (0, 1) AND sequence = (SELECT min(sequence) FROM book_digests"
     " WHERE partition = 0)", "digest = sha256(digest)", "the digest of market 1's book", "digest"),
    ("watermarks", "partition = 1", "engine_version = 0", "the state restored from the database",
     "engine_version"),
    ("accounts", "(user_id, asset_id) = (-1, 2)", "available_atoms = available_atoms + 1",
     "the balance of user -1, asset 2", "available_atoms"),
    ("accounts", "(user_id, asset_id) = (SELECT min(user_id), 1 FROM users WHERE user_id > 0)",
     "available_atoms = available_atoms - 1, held_atoms = held_atoms + 1",
     "the balance of user {}, asset 1", "held_atoms"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("table", "where", "change", "named", "column"), CHANGES, ids=[f"{c[0]}: {c[2]}" for c in CHANGES]
)
async def test_a_changed_row_is_named(
    history: Desk, table: str, where: str, change: str, named: str, column: str
) -> None:
    [row] = await history.rows(f"SELECT * FROM {table} WHERE {where}")
    report = await _replay_changed(history, f"UPDATE {table} SET {change} WHERE {where}")
    assert not report.ok
    found = _named(report, named.format(row[0]))
    assert column in (found.expected or {})
    assert (found.expected or {})[column] != (found.found or {}).get(column)


async def test_a_changed_ledger_row_is_named(history: Desk) -> None:
    [(ledger_id, sequence, user_id, asset_id, delta_atoms)] = await history.rows(
        "SELECT ledger_id, sequence, user_id, asset_id, delta_atoms FROM ledger WHERE kind = 3"
        " AND partition = 0 AND user_id > 0 ORDER BY ledger_id OFFSET 9 LIMIT 1"
    )
    report = await _replay_changed(
        history, f"UPDATE ledger SET delta_atoms = delta_atoms + 1 WHERE ledger_id = {ledger_id}"
    )
    found = _named(report, f"ledger rows of user {user_id}, asset {asset_id}")
    assert found.where == f"partition 0, sequence {sequence}"
    assert found.expected == {"delta_atoms": delta_atoms}
    assert found.found == {"delta_atoms": delta_atoms + 1}
    assert report.differences.count == 1, "the balance is right, and so is all else"


async def test_rows_that_no_command_made_are_named(history: Desk) -> None:
    """A trade, an order at the place of another, and a transaction of the ledger that somebody added."""
    report = await _replay_changed(
        history,
        "INSERT INTO trades SELECT market_id, 500000, partition, sequence, time_us, price_ticks, qty_lots,"
        " taker_side, maker_order_id, taker_order_id, maker_user_id, taker_user_id, maker_fee_atoms,"
        " taker_fee_atoms FROM trades WHERE (market_id, trade_id) = (1, 2)",
        "INSERT INTO orders SELECT -5, user_id, market_id, partition, sequence, NULL, side, type,"
        " time_in_force, post_only, stp, price_ticks, qty_lots, quote_atoms, hold_atoms, created_us, 5, 1, 0,"
        " 0, 0, 0, updated_us FROM orders WHERE order_id = (SELECT min(order_id) FROM orders)",
        "INSERT INTO ledger (kind, partition, sequence, user_id, asset_id, delta_atoms)"
        " VALUES (3, 0, 999999, -1, 1, 5), (3, 0, 999999, -2, 1, -5)",
    )
    names = [one.what for one in report.differences.first]
    assert "trade 500000 of market 1, which no command made" in names
    assert "order -5, which no command placed" in names
    assert names.count("ledger row, above the watermark") == 2
    assert report.differences.count == 4


async def test_a_row_that_is_gone_is_named(history: Desk) -> None:
    """A trade, an ended order, a digest, and the last transaction of the ledger."""
    [(order_id,)] = await history.rows("SELECT max(order_id) FROM orders WHERE status = 7")
    [(sequence,)] = await history.rows("SELECT max(sequence) FROM ledger WHERE kind = 3 AND partition = 1")
    [(digested,)] = await history.rows("SELECT max(sequence) FROM book_digests WHERE partition = 0")
    report = await _replay_changed(
        history,
        "DELETE FROM trades WHERE (market_id, trade_id) = (1, 8)",
        f"DELETE FROM orders WHERE order_id = {order_id}",
        f"DELETE FROM book_digests WHERE (partition, sequence) = (0, {digested})",
        f"DELETE FROM ledger WHERE (kind, partition, sequence) = (3, 1, {sequence})",
    )
    assert _named(report, "trade 8 of market 1").found is None
    assert _named(report, f"order {order_id}").found is None
    assert _named(report, "the digest of market 1's book").found is None
    unbooked = [one for one in report.differences.first if one.what.startswith("ledger rows of user")]
    assert unbooked
    assert all(one.found is None for one in unbooked)


async def test_a_changed_byte_of_the_archive_breaks_off_there(history: Desk) -> None:
    [(first, last)] = await history.rows(
        "SELECT first_sequence, last_sequence FROM outbox_archive WHERE partition = 1"
        " ORDER BY first_sequence OFFSET 6 LIMIT 1"
    )
    report = await _replay_changed(
        history,
        "UPDATE outbox_archive SET commands = set_byte(commands, 12, 255 - get_byte(commands, 12))"
        f" WHERE partition = 1 AND first_sequence = {first}",
    )
    [difference] = report.differences.first
    assert difference.what == f"the batch {first} to {last}"
    assert difference.where == f"partition 1, sequence {first}"
    assert "chain does not cover its bytes" in str(difference.found)
    assert [one.complete for one in report.partitions] == [True, False, True, True]
    assert report.accounts == 0, "nothing is said of balances that were not replayed"


async def test_a_missing_batch_breaks_off_there(history: Desk) -> None:
    [(first,)] = await history.rows(
        "SELECT first_sequence FROM outbox_archive WHERE partition = 0 ORDER BY 1 OFFSET 4 LIMIT 1"
    )
    report = await _replay_changed(
        history, f"UPDATE outbox_archive SET partition = 3 WHERE (partition, first_sequence) = (0, {first})"
    )
    assert any(f"gap after {first - 1}" in str(one.found) for one in report.differences.first)
    assert [one.complete for one in report.partitions] == [False, True, True, False]


async def test_a_log_that_ends_too_soon_is_found(history: Desk) -> None:
    [(first,)] = await history.rows(
        "SELECT max(first_sequence) FROM outbox JOIN watermarks w USING (partition)"
        " WHERE partition = 1 AND last_sequence <= w.sequence"
    )
    report = await _replay_changed(
        history, f"DELETE FROM outbox WHERE partition = 1 AND first_sequence >= {first}"
    )
    [difference] = report.differences.first
    assert difference.what == "the log"
    assert "ends at" in str(difference.found)


async def test_an_engine_that_forgets_is_found(history: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that loses priorities in a snapshot goes on differently from where it was restored."""
    whole = Engine.snapshot

    def forgetful(engine: Engine) -> m.Snapshot:
        snapshot = whole(engine)
        for order in snapshot.orders:
            order.sequence = 10**9 - order.sequence
        return snapshot

    monkeypatch.setattr(Engine, "snapshot", forgetful)
    report = await _replay(history, points=10)
    assert any("restored at" in one.what for one in report.differences.first)


async def test_long_work_says_how_far_it_is(history: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.replay.PROGRESS_S", 0.0)
    lines: list[str] = []
    await replay(history.connection, points=0, seed=1, progress=lines.append)
    assert len(lines) > 10
    assert all("commands" in line and "a second" in line for line in lines)
