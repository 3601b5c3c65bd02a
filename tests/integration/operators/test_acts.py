"""Every act of an operator has its row, written with it or not at all; and rows stay as they are."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import psycopg
import pytest

from common import db
from common.acts import Acts
from common.acts_of_keys import KeyActs
from common.audit import audit
from common.audit_log import GRPC, Actor, Entry, read_audit_log
from common.core.errors import ExchangeError
from common.core.messages import MarketStatus
from common.identity.vault import Vault, new_master_key
from tests.integration.order_service.desk import Desk

pytestmark = pytest.mark.anyio

ALICE = Actor("alice", GRPC)


@pytest.fixture
async def acts(desk: Desk) -> Acts:
    return Acts(desk.connection, ALICE)


async def newest(desk: Desk) -> Entry:
    [entry] = await read_audit_log(desk.connection, limit=1)
    return entry


async def test_each_act_says_who_what_and_to_whom(desk: Desk, acts: Acts) -> None:
    async def did(act: str, target: str, outcome: str = "done", **arguments: object) -> None:
        entry = await newest(desk)
        said = {name: value for name, value in entry.arguments.items() if name in arguments}
        assert (entry.actor, entry.via, entry.act, entry.target) == ("alice", "grpc", act, target)
        assert (entry.outcome, said) == (outcome, arguments)

    user_id = await acts.create_user("bob")
    user = f"user {user_id}"
    await did("user create", user, name="bob")
    token = await acts.create_token(user_id)
    await did("user token", user)
    await acts.revoke_user(user_id)
    await did("user revoke", user)
    await acts.revoke_user(user_id)
    await did("user revoke", user, "repeated")
    await acts.deposit(user_id, "USD", "12.50", "tx 1")
    await did("user deposit", user, asset="USD", amount="12.50", reference="tx 1")
    await acts.deposit(user_id, "USD", "12.50", "tx 1")
    await did("user deposit", user, "repeated", reference="tx 1")
    one, _ = await acts.request_withdrawal(user_id, "USD", "2.5", "there", "mine")
    await did("withdrawal request", f"withdrawal {one.withdrawal_id}", user=user_id, address="there")
    await acts.complete_withdrawal(one.withdrawal_id, "tx 2")
    await did("withdrawal complete", f"withdrawal {one.withdrawal_id}", transaction="tx 2", amount="2.5")
    two, _ = await acts.request_withdrawal(user_id, "USD", "1", "there", "other")
    await acts.cancel_withdrawal(two.withdrawal_id, "no such address")
    await did("withdrawal cancel", f"withdrawal {two.withdrawal_id}", reason="no such address", user=user_id)
    await acts.create_market("SOL-USD", tick="0.01", lot="0.1")
    await did("market create", "market SOL-USD", tick="0.01", lot="0.1")
    await acts.set_fees("SOL-USD", 1, None)
    await did("market set-fees", "market SOL-USD", maker_fee_bps=1, taker_fee_bps=None)
    await acts.set_status("SOL-USD", MarketStatus.HALTED)
    await did("market halt", "market SOL-USD")
    await acts.set_status("SOL-USD", MarketStatus.ACTIVE)
    await did("market resume", "market SOL-USD")
    assert token not in str(await desk.rows("SELECT * FROM audit_log"))
    for partition in range(4):
        await desk.run(partition)
    await desk.check_money()


async def test_acts_on_keys_too_and_no_secret_with_them(desk: Desk, acts: Acts) -> None:
    user_id = await acts.create_user("bob")
    old, new = new_master_key("old"), new_master_key("new")
    keys = KeyActs(desk.connection, ALICE, Vault([old]))
    made = await keys.create(user_id, label="bot", allowed=["READ"], networks=["10.0.0.0/8"])
    entry = await newest(desk)
    assert (entry.act, entry.target, entry.outcome) == ("key create", f"key {made.api_key}", "done")
    assert entry.arguments["permissions"] == ["READ"]
    both = KeyActs(desk.connection, ALICE, Vault([new, old]))
    assert [await both.rotate_master(), await both.rotate_master()] == [1, 0]
    assert [(each.outcome, each.arguments) for each in await read_audit_log(desk.connection, limit=2)] == [
        ("repeated", {"sealed_again": 0}),
        ("done", {"sealed_again": 1}),
    ]
    again = await both.rotate(made.api_key)
    assert (await newest(desk)).arguments["new_key"] == again.api_key
    assert [await both.revoke(again.api_key), await both.revoke(again.api_key)] == [True, False]
    assert (await newest(desk)).outcome == "repeated"
    kept = str(await desk.rows("SELECT * FROM audit_log"))
    assert made.secret is not None
    assert again.secret is not None
    assert not any(secret in kept for secret in (made.secret, again.secret))


REFUSALS: list[tuple[str, str, Callable[[Acts, int], Awaitable[object]]]] = [
    ("user create", "MALFORMED", lambda acts, _: acts.create_user("")),
    ("user create", "MALFORMED", lambda acts, _: acts.create_user("x" * 5_000)),
    ("user token", "NOT_FOUND", lambda acts, _: acts.create_token(-1)),
    ("user revoke", "NOT_FOUND", lambda acts, user: acts.revoke_user(999_999)),
    ("user deposit", "NOT_FOUND", lambda acts, user: acts.deposit(999_999, "USD", "1", "r")),
    ("user deposit", "NOT_FOUND", lambda acts, user: acts.deposit(user, "EUR", "1", "r")),
    ("user deposit", "INVALID_QUANTITY", lambda acts, user: acts.deposit(user, "USD", "-1", "r")),
    ("user deposit", "MALFORMED", lambda acts, user: acts.deposit(user, "USD", "1", "r\0\ud800")),
    ("withdrawal request", "INSUFFICIENT_FUNDS",
     lambda acts, user: acts.request_withdrawal(user, "USD", "1", "there", "r")),
    ("withdrawal complete", "NOT_FOUND", lambda acts, user: acts.complete_withdrawal(7, "tx")),
    ("withdrawal cancel", "MALFORMED", lambda acts, user: acts.cancel_withdrawal(7, "\0")),
    ("market create", "CONFLICT", lambda acts, _: acts.create_market("BTC-USD", tick="1", lot="1")),
    ("market create", "INVALID_MARKET", lambda acts, _: acts.create_market("BTCUSD", tick="1", lot="1")),
    ("market create", "INVALID_MARKET", lambda acts, _: acts.create_market("btc\0-usd", tick="1", lot="1")),
    ("market create", "MALFORMED",
     lambda acts, _: acts.create_market("X1-Y1", tick="1", lot="1", scale=99)),
    ("market set-fees", "INVALID_MARKET", lambda acts, _: acts.set_fees("BTC-USD", None, None)),
    ("market set-fees", "INVALID_MARKET", lambda acts, _: acts.set_fees("BTC-USD", 9_999, None)),
    ("market halt", "UNKNOWN_SYMBOL", lambda acts, _: acts.set_status("NO-NE", MarketStatus.HALTED)),
]  # fmt: skip


async def test_what_was_refused_is_written_down_and_changed_nothing(desk: Desk, acts: Acts) -> None:
    user_id = await acts.create_user("poor")
    first = (await newest(desk)).entry_id + 1
    before = await _everything(desk)
    for number, (act, code, refused) in enumerate(REFUSALS, first):
        with pytest.raises(ExchangeError):
            await refused(acts, user_id)
        entry = await newest(desk)
        assert (entry.entry_id, entry.act, entry.outcome) == (number, act, code)
        assert len(entry.target) <= 300
    assert await _everything(desk) == before
    await desk.check_money()


async def _everything(desk: Desk) -> list[Any]:
    tables = "users", "tokens", "accounts", "ledger", "deposits", "withdrawals", "assets", "markets", "outbox"
    return [await desk.rows(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]


async def test_no_act_without_its_row(desk: Desk, acts: Acts) -> None:
    """Where the log cannot be written, nothing is done."""
    before = await _everything(desk)
    shut = "ALTER TABLE audit_log ADD CONSTRAINT shut CHECK (act <> 'user create') NOT VALID"
    await desk.connection.execute(shut.encode())
    try:
        with pytest.raises(psycopg.errors.CheckViolation):
            await acts.create_user("bob")
    finally:
        await desk.connection.execute("ALTER TABLE audit_log DROP CONSTRAINT shut")
    assert await _everything(desk) == before


async def test_rows_stay(desk: Desk, acts: Acts) -> None:
    await acts.create_user("bob")
    before = await desk.rows("SELECT * FROM audit_log ORDER BY entry_id")
    for statement in (
        "UPDATE audit_log SET actor = 'nobody'",
        "UPDATE audit_log SET actor = 'nobody' WHERE false",
        "DELETE FROM audit_log WHERE entry_id = 1",
        "TRUNCATE audit_log",
        "INSERT INTO audit_log SELECT * FROM audit_log ON CONFLICT (entry_id) DO UPDATE SET actor = 'nobody'",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="audit_log is append-only"):
            await desk.connection.execute(statement.encode())
    assert await desk.rows("SELECT * FROM audit_log ORDER BY entry_id") == before


async def test_what_a_row_says_of_itself_is_not_asked_of_who_writes_it(desk: Desk, acts: Acts) -> None:
    """Its number, its time and its hashes are the table's own."""
    await acts.create_user("bob")
    last = await newest(desk)
    await desk.connection.execute(
        "INSERT INTO audit_log VALUES (999, '2000-01-01', 'x', 'cli', 'a', 't', '{}', 'done', '', sha256(''))"
    )
    entry = await newest(desk)
    assert (entry.entry_id, entry.at > last.at) == (last.entry_id + 1, True)
    await desk.check_money()


async def test_writers_at_the_same_time_make_one_chain(desk: Desk) -> None:
    async def write(number: int) -> None:
        async with db.connect(desk.url, f"writer {number}") as connection:
            own = Acts(connection, Actor(f"writer {number}", GRPC))
            for count in range(10):
                await own.create_user(f"{number} {count}")

    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(write, number)
    entries = await read_audit_log(desk.connection, limit=1_000)
    count = len(entries)
    assert [entry.entry_id for entry in entries] == list(range(count, 0, -1))
    assert len({entry.hash for entry in entries}) == count >= 40
    findings = await audit(desk.connection)
    assert [finding.name for finding in findings if not finding.ok] == []
    [chain] = [finding for finding in findings if re.match("the audit log is whole", finding.name)]
    assert chain.looked_at == count
    older = await read_audit_log(desk.connection, limit=2, before_id=31)
    assert [entry.entry_id for entry in older] == [30, 29]
