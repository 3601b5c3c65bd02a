"""Each check of the audit, by one row that is changed behind the exchange's back.

The history is made once; each change is rolled back. Where one row breaks two rules, because one of
them follows from the others, both are named.
"""

import pytest

from common.audit import audit, run_checks
from common.audit_checks import CHECKS
from tests.integration.order_service.desk import Desk
from tests.integration.order_service.traffic import SETTLED_BATCHES

pytestmark = pytest.mark.anyio

FOLLOW = "the batches of every partition follow each other from sequence 1, each once"
COVERS = "every batch's chain covers its bytes"
COUNTS = "every partition counts to the end of its log"
WATERMARK = "every watermark stands at the end of a batch, on its chain"
RELAY = "every relay stands at the end of a batch"
ARCHIVED = "nothing is archived before it is settled"
DRAINED = next(check.name for check in CHECKS if "drained" in check.name)
IN_BATCH = "every order stands in a batch of its market's partition"
OWN_SEQUENCE = "no two orders have the same sequence"
SETTLED = "no order above the watermark is settled, and every one below is"
SUMS = "every order's filled quantity, quote and fee are the sums of its fills"
HISTORY = "every state of an order has a history that explains it"
HOLDS = "a live order holds what it still needs, an ended one nothing"
TRADE_IDS = "trade ids are consecutive in every market"
EXPLAINED = "every trade is between two orders that explain it"
ABOVE = "no trade, no money moved and no digest stands above the watermark"
SKIPPED = "a skipped order ended CANCELED for it with nothing filled, and no other did"
LEDGER_ROWS = "every ledger row says what it is of"
TRANSACTIONS = "every ledger transaction sums to zero"
ASSETS = "every asset sums to zero in the ledger"
LEDGER_TRADES = "the ledger's trades are what the trades moved, per account"
CONSERVED = "available + held = deposits - withdrawals, per asset"
BALANCES = "every balance is the sum of its ledger rows"
HELD = "held is what the live orders and the pending withdrawals hold, per account"
NEGATIVE = "no balance is negative"
OUTSIDE = "every deposit and every completed withdrawal moved its amount once, and nothing else did"
ISSUED = "what is issued of an asset is deposits - withdrawals"
AUDIT_LOG = "the audit log is whole: every row's hash covers it and the one before"

ANY_TRADE = "(market_id, trade_id) = (1, 5)"
OPEN = "(SELECT min(order_id) FROM orders WHERE status = 2)"
FILLED = "(SELECT min(order_id) FROM orders WHERE status = 4)"
WAITING = "(SELECT max(order_id) FROM orders WHERE status = 1)"
LEDGER_3 = "(SELECT min(ledger_id) FROM ledger WHERE kind = 3 AND user_id > 0)"
RICH = (
    "(SELECT user_id FROM accounts WHERE asset_id = 1 AND user_id > 0 ORDER BY available_atoms DESC LIMIT 1)"
)
# Of a batch that placed an order: one of an operator's or of cancels alone would be missed by fewer.
ARCHIVED_5 = (
    "(SELECT a.first_sequence FROM outbox_archive a WHERE a.partition = 0 AND EXISTS (SELECT FROM orders o"
    " WHERE o.partition = 0 AND o.sequence BETWEEN a.first_sequence AND a.last_sequence)"
    " ORDER BY 1 OFFSET 5 LIMIT 1)"
)

CORRUPTIONS: list[tuple[str, str, set[str]]] = [
    # The log.
    ("a batch is gone", f"DELETE FROM outbox_archive WHERE partition = 0 AND first_sequence = {ARCHIVED_5}",
     {FOLLOW, IN_BATCH}),
    ("a batch stands twice", "INSERT INTO outbox SELECT * FROM outbox_archive"
     f" WHERE partition = 0 AND first_sequence = {ARCHIVED_5}", {FOLLOW}),
    ("a byte of a command", "UPDATE outbox_archive SET commands = set_byte(commands, 9, 1 +"
     f" get_byte(commands, 9) % 200) WHERE partition = 0 AND first_sequence = {ARCHIVED_5}", {COVERS}),
    ("the whole log of a partition that counts", "UPDATE shards SET last_sequence = 3 WHERE partition = 3",
     {COUNTS}),
    ("another chain in the counter", "UPDATE shards SET chain = sha256('') WHERE partition = 0", {COUNTS}),
    ("another chain at the watermark", "UPDATE watermarks SET chain = sha256('') WHERE partition = 0",
     {WATERMARK}),
    ("no watermark", "DELETE FROM watermarks WHERE partition = 3", {WATERMARK}),
    ("another time at the watermark", "UPDATE watermarks SET time_us = time_us + 1 WHERE partition = 0",
     {WATERMARK}),
    ("a watermark that was set back", "UPDATE watermarks SET (sequence, chain, time_us) ="
     " (0, decode(repeat('00', 32), 'hex'), 0) WHERE partition = 0", {ARCHIVED, SETTLED, ABOVE}),
    ("a relay beyond the log", "UPDATE relay_cursors SET next_sequence = 999999 WHERE partition = 1",
     {RELAY}),
    ("no relay", "DELETE FROM relay_cursors WHERE partition = 2", {RELAY}),
    ("archived too soon", "WITH moved AS (DELETE FROM outbox o USING watermarks w WHERE w.partition ="
     " o.partition AND o.first_sequence > w.sequence RETURNING o.*) INSERT INTO outbox_archive"
     " SELECT * FROM moved", {ARCHIVED}),
    # Orders.
    ("an order in another partition", f"UPDATE orders SET partition = 3 WHERE order_id = {WAITING}",
     {IN_BATCH}),
    ("an order at another time", f"UPDATE orders SET created_us = created_us - 1 WHERE order_id = {OPEN}",
     {IN_BATCH}),
    ("an order beyond its batch", f"UPDATE orders SET sequence = sequence + 400 WHERE order_id = {WAITING}",
     {IN_BATCH}),
    ("an order's sequence twice", "UPDATE orders o SET sequence = p.sequence FROM orders p"
     " WHERE o.partition = p.partition AND o.created_us = p.created_us AND o.order_id = (SELECT max(order_id)"
     " FROM orders WHERE filled_lots = 0 AND (partition, created_us) IN (SELECT partition, created_us"
     " FROM orders GROUP BY 1, 2 HAVING count(*) > 1)) AND p.order_id <> o.order_id", {OWN_SEQUENCE}),
    ("settled too soon", "UPDATE orders SET status = 5, reason = 1, held_atoms = 0"
     f" WHERE order_id = {WAITING}", {SETTLED, HELD}),
    ("not settled", f"UPDATE orders SET status = 1 WHERE order_id = {OPEN}", {SETTLED}),
    ("a lot that no trade filled", f"UPDATE orders SET fee_atoms = fee_atoms + 1 WHERE order_id = {FILLED}",
     {SUMS}),
    ("a quote that no trade paid", "UPDATE orders SET filled_quote_atoms = filled_quote_atoms - 1"
     f" WHERE order_id = {FILLED}", {SUMS}),
    ("filled, but not all of it", f"UPDATE orders SET qty_lots = filled_lots + 1 WHERE order_id = {FILLED}"
     " AND quote_atoms = 0", {HISTORY}),
    ("canceled without a reason", "UPDATE orders SET reason = 0 WHERE order_id = (SELECT min(order_id)"
     " FROM orders WHERE status = 5)", {HISTORY}),
    ("a state that there is not", "UPDATE orders SET status = 9 WHERE order_id = (SELECT min(order_id)"
     " FROM orders WHERE status = 5)", {HISTORY}),
    ("open, of a kind that never rests", f"UPDATE orders SET time_in_force = 2 WHERE order_id = {OPEN}",
     {HISTORY}),
    ("an ended order holds", "UPDATE orders SET held_atoms = 1 WHERE order_id = (SELECT min(order_id)"
     " FROM orders WHERE status = 5)", {HOLDS}),
    ("a live order holds too much", f"UPDATE orders SET held_atoms = held_atoms + 1 WHERE order_id = {OPEN}",
     {HOLDS, HELD}),
    # Skips.
    ("ended by a skip that nobody made", "UPDATE orders SET reason = 8 WHERE order_id = (SELECT min(order_id)"
     " FROM orders WHERE status = 5)", {SKIPPED}),
    ("went on in spite of a skip", "INSERT INTO operator_acts (partition, act, reason, operator, sequence)"
     f" SELECT partition, 'skip_command', 'r', 'o', sequence FROM orders WHERE order_id = {OPEN}", {SKIPPED}),
    ("a skip beyond the log", "INSERT INTO operator_acts (partition, act, reason, operator, sequence)"
     " VALUES (0, 'skip_command', 'r', 'o', 999999)", {SKIPPED}),
    # Trades.
    ("a trade is gone", f"DELETE FROM trades WHERE {ANY_TRADE}", {TRADE_IDS, SUMS, LEDGER_TRADES}),
    ("a trade without orders", "INSERT INTO trades SELECT market_id, trade_id + 1, partition, sequence,"
     " time_us, price_ticks, qty_lots, taker_side, -1, -2, maker_user_id, taker_user_id, 0, 0 FROM trades"
     " WHERE market_id = 1 ORDER BY trade_id DESC LIMIT 1", {TRADE_IDS, EXPLAINED, SUMS, LEDGER_TRADES}),
    ("the last trade id is not the market's", "UPDATE market_states SET next_trade_id = next_trade_id + 1"
     " WHERE market_id = 2", {TRADE_IDS}),
    ("a market's state is gone", "DELETE FROM market_states WHERE market_id = 2", {TRADE_IDS}),
    ("a price", f"UPDATE trades SET price_ticks = price_ticks + 1 WHERE {ANY_TRADE}",
     {EXPLAINED, SUMS, LEDGER_TRADES}),
    ("whose trade it is", f"UPDATE trades SET maker_user_id = 1 WHERE {ANY_TRADE}",
     {EXPLAINED, LEDGER_TRADES}),
    ("when it was", f"UPDATE trades SET time_us = time_us + 1 WHERE {ANY_TRADE}", {EXPLAINED}),
    ("a trade above the watermark", f"UPDATE trades SET sequence = 999999 WHERE {ANY_TRADE}",
     {EXPLAINED, ABOVE}),
    ("money above the watermark", "UPDATE ledger SET sequence = 999999 WHERE (partition, sequence) ="
     f" (SELECT partition, sequence FROM ledger WHERE ledger_id = {LEDGER_3})", {ABOVE}),
    ("a digest above the watermark", "INSERT INTO book_digests VALUES (0, 999999, 1, sha256(''))", {ABOVE}),
    # Money.
    ("a deposit without a reference", "UPDATE ledger SET reference = NULL WHERE reference = (SELECT"
     " min(reference) FROM ledger)", {LEDGER_ROWS, OUTSIDE}),
    ("a row of no kind", f"UPDATE ledger SET kind = 7 WHERE sequence = (SELECT sequence FROM ledger WHERE"
     f" ledger_id = {LEDGER_3}) AND partition = (SELECT partition FROM ledger WHERE ledger_id = {LEDGER_3})",
     {LEDGER_ROWS, LEDGER_TRADES}),
    ("a withdrawal that adds", "UPDATE ledger SET kind = 2 WHERE reference = (SELECT min(reference)"
     " FROM ledger)", {LEDGER_ROWS, OUTSIDE}),
    ("a row belongs to another transaction", f"UPDATE ledger SET sequence = 1 WHERE ledger_id = {LEDGER_3}",
     {TRANSACTIONS}),
    ("a ledger row", f"UPDATE ledger SET delta_atoms = delta_atoms + 1 WHERE ledger_id = {LEDGER_3}",
     {TRANSACTIONS, ASSETS, LEDGER_TRADES, BALANCES}),
    ("both sides of a ledger row", "INSERT INTO ledger (kind, partition, sequence, user_id, asset_id,"
     " delta_atoms) SELECT 3, 0, 1, u, 1, d FROM (VALUES (-1, 7), (-2, -7)) v (u, d)",
     {LEDGER_TRADES, BALANCES}),
    ("a balance", f"UPDATE accounts SET available_atoms = available_atoms + 1 WHERE user_id = {RICH}"
     " AND asset_id = 1", {CONSERVED, BALANCES}),
    ("a balance moves to another", "UPDATE accounts SET available_atoms = available_atoms + CASE user_id"
     f" WHEN {RICH} THEN -1 ELSE 1 END WHERE asset_id = 1 AND user_id IN ({RICH}, -1)", {BALANCES}),
    ("an account is gone", "DELETE FROM accounts WHERE (user_id, asset_id) = (-1, 2)", {CONSERVED, BALANCES}),
    ("held without an order", "UPDATE accounts SET available_atoms = available_atoms - 1, held_atoms ="
     f" held_atoms + 1 WHERE user_id = {RICH} AND asset_id = 1", {HELD}),
    ("below zero", "ALTER TABLE accounts DROP CONSTRAINT accounts_available_atoms_check; UPDATE accounts SET"
     " available_atoms = -1 WHERE (user_id, asset_id) = (-1, 2)", {NEGATIVE, CONSERVED, BALANCES}),
    # What came from outside and went there.
    ("a withdrawal that nobody paid", "UPDATE withdrawals SET (status, closing, ended_at) = (2, 'tx', now())"
     " WHERE status = 1", {OUTSIDE, HELD}),
    ("a withdrawal that holds nothing", "INSERT INTO withdrawals (user_id, asset_id, atoms, address,"
     " reference) SELECT min(user_id), 1, 7, 'x', 'nobody asked' FROM users WHERE user_id > 0", {HELD}),
    ("a deposit of another amount", "UPDATE deposits SET atoms = atoms + 1"
     " WHERE reference = 'for withdrawals'", {OUTSIDE}),
    ("more issued than came in", "UPDATE assets SET issued_atoms = issued_atoms + 1 WHERE asset_id = 2",
     {ISSUED}),
    ("an operator's act changed", "ALTER TABLE audit_log DISABLE TRIGGER USER; UPDATE audit_log SET actor ="
     " 'nobody' WHERE entry_id = 2", {AUDIT_LOG}),
    ("an operator's act taken out", "ALTER TABLE audit_log DISABLE TRIGGER USER; DELETE FROM audit_log"
     " WHERE entry_id = 2", {AUDIT_LOG}),
]  # fmt: skip


async def test_a_history_that_happened_is_sound(history: Desk) -> None:
    findings = await audit(history.connection)
    assert [finding for finding in findings if not finding.ok] == []
    assert all(finding.looked_at > 0 for finding in findings)
    statuses = {row[0] for row in await history.rows("SELECT DISTINCT status FROM orders")}
    assert {1, 2, 4, 5, 7} <= statuses, "the history has orders of every kind"


@pytest.mark.parametrize(
    ("change", "broken"), [one[1:] for one in CORRUPTIONS], ids=[c[0] for c in CORRUPTIONS]
)
async def test_one_changed_row_is_found(history: Desk, change: str, broken: set[str]) -> None:
    connection = history.connection
    await connection.execute("BEGIN")
    try:
        for statement in change.split("; "):
            cursor = await connection.execute(statement.encode())
        assert cursor.rowcount > 0, "the corruption changes something"
        found = {finding.name: finding for finding in await run_checks(connection) if not finding.ok}
    finally:
        await connection.execute("ROLLBACK")
    assert set(found) == broken, found
    assert all(len(finding.columns) == len(finding.rows[0]) for finding in found.values())


async def test_an_outbox_that_nobody_drains_is_found(history: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """One settled batch more than the bound; made cheap by a bound of what is there less one."""
    assert (await history.rows(SETTLED_BATCHES))[0][0] > 0
    [check] = [check for check in CHECKS if check.name == DRAINED]
    for bound in ("> 10000", "> 1000000"):
        assert bound in check.violations
        strict = type(check)(check.name, check.looked_at, check.violations.replace(bound, "> 0"))
        monkeypatch.setattr("common.audit.CHECKS", (strict,))
        [finding] = await audit(history.connection)
        assert not finding.ok


def test_every_check_is_seen_to_fire() -> None:
    fired = set().union(*(broken for _, _, broken in CORRUPTIONS))
    assert fired | {DRAINED} == {check.name for check in CHECKS}
