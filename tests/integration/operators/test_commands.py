"""The operator's commands as they are typed, and what the audit log keeps of them."""

import getpass
import json
from functools import partial
from pathlib import Path

import anyio
import pytest

from common.identity.vault import read_master_keys
from daemons.local.cli import main
from tests.integration.order_service.desk import USD, Desk

pytestmark = pytest.mark.anyio


class Typed:
    def __init__(self, captured: pytest.CaptureFixture[str]) -> None:
        self._captured = captured

    async def __call__(self, line: str, *more: str, code: int = 0) -> str:
        """What it prints, on stderr when it fails; the command has a loop of its own, in a thread."""
        self._captured.readouterr()
        ended = await anyio.to_thread.run_sync(partial(main, [*line.split(), *more]))
        out, error = self._captured.readouterr()
        assert ended == code, error
        return out if code == 0 else error


@pytest.fixture
def typed(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Typed:
    monkeypatch.setenv("EXCHANGE_POSTGRES_URL", desk.url)
    monkeypatch.setenv("EXCHANGE_DATA", str(tmp_path))
    return Typed(capfd)


async def test_money_goes_out(desk: Desk, typed: Typed) -> None:
    user_id = (await typed("user create", "a person")).strip()
    assert await typed(f"user deposit {user_id} USD 12.5 --reference r1") == (
        f"Deposited 12.5 USD for user {user_id}.\n"
    )
    again = await typed(f"user deposit {user_id} USD 12.5 --reference r1")
    assert again == "The deposit 'r1' was made before; nothing has changed.\n"
    assert "another deposit's" in await typed(f"user deposit {user_id} USD 13 --reference r1", code=1)
    asked = f"withdrawal request {user_id} USD 2.5 there --reference w"
    number = (await typed(asked)).removeprefix("Withdrawal ").removesuffix(" is PENDING.\n")
    assert await typed(asked) == f"Withdrawal {number} is PENDING, as it was before; nothing has changed.\n"
    assert await desk.account(int(user_id), USD) == (10 * 10**8, 25 * 10**7)
    assert await typed("withdrawal list") == f"{number}  PENDING  user {user_id}  2.5 USD  to there  w\n"
    paid = f"withdrawal complete {number} --transaction tx1"
    assert await typed(paid) == f"Withdrawal {number} is COMPLETED.\n"
    assert "is COMPLETED already: tx1" in await typed(f"withdrawal cancel {number} --reason x", code=1)
    assert await typed("withdrawal list") == ""
    assert "COMPLETED  user" in await typed("withdrawal list --all")
    assert "There is no user" in await typed("user token 999999", code=1)
    await desk.check_money()


async def test_keys_come_and_go(typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user_id = (await typed("user create", "a bot")).strip()
    assert "EXCHANGE_MASTER_KEYS" in await typed(f"key create {user_id}", code=1)
    lines = [(await typed(f"key new-master {name}")).strip() for name in ("one", "two")]
    assert [key.name for line in lines for key in read_master_keys(line)] == ["one", "two"]
    monkeypatch.setenv("EXCHANGE_MASTER_KEYS", lines[0])
    api_key, secret = (await typed(f"key create {user_id} --label bot --network 10.0.0.0/8")).split()
    monkeypatch.setenv("EXCHANGE_MASTER_KEYS", f"{lines[1]},{lines[0]}")
    assert (await typed("key rotate-master")).startswith("1 secrets are sealed under the first")
    monkeypatch.setenv("EXCHANGE_MASTER_KEYS", lines[1])
    renewed, other = (await typed(f"key rotate {api_key} --overlap 60")).split()
    assert (renewed != api_key, other != secret) == (True, True)
    listed = await typed(f"key list --user {user_id}")
    assert f"{renewed}  user {user_id}  HMAC  READ,TRADE  live  10.0.0.0/8  bot" in listed
    assert f"{api_key}  user {user_id}  HMAC  READ,TRADE  expires" in listed
    assert secret not in listed
    assert "has ended" in await typed(f"key revoke {renewed}")
    assert "had ended before" in await typed(f"key revoke {renewed}")
    pem = tmp_path / "public.pem"
    assert "cannot be read" in await typed(f"key create {user_id} --public-key {pem}", code=1)
    pem.write_text("no key")
    assert await typed(f"key create {user_id} --public-key {pem}", code=1)
    log = await typed("audit-log --limit 1000")
    assert "key create" in log
    assert "key rotate-master" in log
    assert not any(word in log for word in (secret, other, lines[0].partition(":")[2]))


async def test_an_exchange_that_others_can_reach_needs_certificates(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before anything is started; `exchange certs` makes what is missing."""
    monkeypatch.setenv("EXCHANGE_HOST", "0.0.0.0")
    assert "EXCHANGE_TLS_DIR" in await typed("up --port 0", code=2)
    folder = tmp_path / "certs"
    monkeypatch.setenv("EXCHANGE_TLS_DIR", str(folder))
    assert f"EXCHANGE_TLS_CERT: {folder}/gateway.pem cannot be read" in await typed("up --port 0", code=2)
    assert "Made an authority" in await typed(f"certs {folder} --host exchange.example --operator ada")
    assert "exists already" in await typed(f"certs {folder}", code=1)
    monkeypatch.setenv("EXCHANGE_PUBLIC_TLS_CERT", str(folder / "gateway.pem"))
    assert "EXCHANGE_PUBLIC_TLS_KEY go together" in await typed("up --port 0", code=2)


async def test_the_log_says_who(typed: Typed) -> None:
    await typed("market halt ETH-USD")
    await typed("market halt NO-NE", code=1)
    await typed("partition resume 0 --reason tired", code=1)
    rows = [json.loads(line) for line in (await typed("audit-log --json --limit 3")).splitlines()]
    assert [(row["act"], row["target"], row["outcome"]) for row in rows] == [
        ("market halt", "market ETH-USD", "done"),
        ("market halt", "market NO-NE", "UNKNOWN_SYMBOL"),
        ("partition resume", "partition 0", "PARTITION_NOT_STOPPED"),
    ]
    assert {(row["actor"], row["via"]) for row in rows} == {(getpass.getuser(), "cli")}
    assert rows[2]["arguments"]["reason"] == "tired"
    assert f"{getpass.getuser()} (cli)  market halt  market ETH-USD  done" in await typed("audit-log")
    await typed("market resume ETH-USD")
