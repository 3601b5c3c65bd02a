"""`exchange audit` and `exchange replay` as they are typed: what they print, and how they end."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import anyio
import psycopg
import pytest

from common.audit_checks import CHECKS
from common.migrate import migrate
from daemons.local.cli import main
from daemons.local.ports import free_port
from daemons.local.postgres import embedded_postgres
from tests.integration.order_service.desk import Desk

pytestmark = pytest.mark.anyio


@pytest.fixture
def typed(history: Desk, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> "Typed":
    monkeypatch.setenv("EXCHANGE_POSTGRES_URL", history.url)
    return Typed(capfd)


class Typed:
    def __init__(self, captured: pytest.CaptureFixture[str]) -> None:
        self._captured = captured

    async def __call__(self, *words: str) -> tuple[int, str]:
        """The exit code and what came out on stdout; the command has a loop of its own, in a thread."""
        self._captured.readouterr()
        code = await anyio.to_thread.run_sync(partial(main, list(words)))
        return code, self._captured.readouterr().out


@contextmanager
def _one_atom_more(url: str) -> Iterator[None]:
    change = "UPDATE accounts SET available_atoms = available_atoms {} WHERE (user_id, asset_id) = (-1, 2)"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(change.format("+ 1").encode())
        try:
            yield
        finally:
            connection.execute(change.format("- 1").encode())


async def test_the_audit_says_a_line_for_each_check(history: Desk, typed: Typed) -> None:
    code, text = await typed("audit")
    assert code == 0, text
    assert "ok        no balance is negative (" in text
    assert text.endswith("Everything adds up.\n")
    with _one_atom_more(history.url):
        code, text = await typed("audit")
        assert code == 1
        assert "VIOLATED  every balance is the sum of its ledger rows" in text
        assert "user_id -1, asset_id 2, available_atoms" in text
        assert text.endswith(f"2 of {len(CHECKS)} checks violated\n")
        code, text = await typed("audit", "--json")
    assert code == 1
    found = json.loads(text)
    assert not found["ok"]
    [violated] = [
        one for one in found["checks"] if one["name"] == "every balance is the sum of its ledger rows"
    ]
    assert violated["rows"][0]["user_id"] == -1
    assert violated["looked_at"] > 0


async def test_the_replay_says_what_it_did_and_what_differs(history: Desk, typed: Typed) -> None:
    code, text = await typed("replay", "--points", "5", "--seed", "7")
    assert code == 0, text
    assert "partition 0: " in text
    assert text.count("engines restored at") in (1, 2)
    assert "bytes an order in the archive" in text
    assert text.endswith("Everything came out the same (seed 7).\n")
    with _one_atom_more(history.url):
        code, text = await typed("replay", "--points", "0")
        assert code == 1
        assert "DIFFERENT: the balance of user -1, asset 2 (accounts)\n    expected available_atoms " in text
        assert "1 DIFFERENCES (seed" in text
        code, text = await typed("replay", "--json", "--seed", "7")
    assert code == 1
    found = json.loads(text)
    assert (found["ok"], found["seed"], found["differences"]["count"]) == (False, 7, 1)
    assert found["bytes_per_order"]["commands"] > 20


async def test_a_stopped_exchange_is_started_for_as_long_as_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EXCHANGE_POSTGRES_URL", "")
    async with embedded_postgres(tmp_path, free_port(), print) as (url, _):
        await migrate(url, 4)
    typed = Typed(capfd)
    for command in ("audit", "replay"):
        code, text = await typed(command, "--data", str(tmp_path))
        assert code == 0, text
        assert not (tmp_path / "pgdata" / "postmaster.pid").exists(), "it is stopped again"
