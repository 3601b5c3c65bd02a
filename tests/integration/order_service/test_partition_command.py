"""`exchange partition` as it is typed: what it shows of one that stands still, and what it refuses."""

import json
from functools import partial

import anyio
import pytest

from common import stops
from common.core import messages as m
from daemons.local.cli import main
from daemons.local.partition import in_words
from daemons.order_service.requests import CancelAllOrders, CancelOrder
from tests.integration.order_service.desk import Desk, limit

pytestmark = pytest.mark.anyio


class Typed:
    def __init__(self, captured: pytest.CaptureFixture[str]) -> None:
        self._captured = captured

    async def __call__(self, *words: str) -> tuple[int, str, str]:
        """The exit code, stdout and stderr; the command has a loop of its own, in a thread."""
        self._captured.readouterr()
        code = await anyio.to_thread.run_sync(partial(main, ["partition", *words]))
        return code, *self._captured.readouterr()


@pytest.fixture
def typed(desk: Desk, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Typed:
    monkeypatch.setenv("EXCHANGE_POSTGRES_URL", desk.url)
    return Typed(capfd)


async def test_a_stop_is_shown_and_skipped(desk: Desk, typed: Typed) -> None:
    user = await desk.user()
    placed, *_ = await desk.submit(
        limit(user, m.Side.BUY, 5_000_000, 1_000), CancelOrder(user, 1), CancelAllOrders(user, "BTC-USD")
    )
    sequence = placed.sequence  # type: ignore[union-attr]  # it was accepted
    await stops.stop(desk.connection, 0, stops.MATCHING, "it cannot be applied", sequence=sequence)
    code, text, _ = await typed("show")
    assert code == 0
    assert f"partition 0: sequence {sequence + 1}, watermark {sequence - 1}" in text
    assert "; STOPPED" in text
    assert "    matching led by test, token 7" in text
    assert "it cannot be applied" in text
    order = f"        {sequence}  PLACE order {placed.order_id} of user {user}: BUY LIMIT GTC"  # type: ignore[union-attr]
    assert f"{order} 0.01000 BTC-USD at 50000.00, holds 500 USD\n" in text
    assert f"        {sequence + 1}  CANCEL ALL of user {user}, BTC-USD\n" in text
    assert "partition 3: sequence 0, watermark 0, relay's cursor 0\n" in text

    why = ("--reason", "it killed the engine", "--operator", "ada")
    code, _, error = await typed("skip", "0", "--sequence", str(sequence + 9), *why)
    assert (code, "has no command" in error) == (1, True)
    code, text, _ = await typed("skip", "0", "--sequence", str(sequence), *why)
    assert (code, text) == (0, f"Partition 0 goes on without the command {sequence}.\n")
    code, text, _ = await typed("show", "0")
    assert "STOPPED" not in text
    assert "holds 500 USD; SKIPPED" in text
    assert f"skip_command {sequence} by ada: it killed the engine" in text


async def test_a_record_is_skipped_and_kept(desk: Desk, typed: Typed) -> None:
    place = {"topic": "exchange.orders", "offset": 17, "record": b"\xffhalf"}
    await stops.stop(desk.connection, 1, stops.MATCHING, "cannot be read", **place)  # type: ignore[arg-type]
    code, text, _ = await typed("show", "1", "--json")
    [found] = json.loads(text)
    [stop] = found["stops"]
    assert (stop["topic"], stop["offset"], stop["record_bytes"]) == ("exchange.orders", 17, 5)
    code, _, error = await typed("skip", "1", "--record", "17", "--reason", "r")
    assert (code, "is not TOPIC:OFFSET" in error) == (1, True)
    code, text, _ = await typed("skip", "1", "--record", "exchange.orders:17", "--reason", "r")
    assert code == 0
    [kept] = await desk.rows("SELECT (record = %s)::int, length(operator) FROM operator_acts", b"\xffhalf")
    assert kept[0] == 1
    assert kept[1] > 0
    assert "skip_record exchange.orders:17 by" in (await typed("show", "1"))[1]


async def test_what_cannot_be_is_said_in_a_sentence(desk: Desk, typed: Typed) -> None:
    for words, said in (
        (("show", "9"), "There is no partition 9"),
        (("resume", "0", "--reason", "r"), "Partition 0 is not stopped"),
        (("resume", "0", "--reason", " "), "An act of an operator needs a reason"),
        (("skip", "9", "--sequence", "1", "--reason", "r"), "There is no partition 9"),
        (("skip", "0", "--sequence", "1", "--reason", "r", "--force"), "The command 1 is settled"),
    ):
        code, out, error = await typed(*words)
        assert (code, out) == (1, "")
        assert said in error
    await stops.stop(desk.connection, 0, stops.SETTLEMENT, "TX2 is impossible")
    assert (await typed("resume", "0", "--reason", "mended"))[:2] == (0, "Partition 0 goes on.\n")
    assert await desk.rows("SELECT stopped FROM watermarks WHERE stopped IS NOT NULL") == []


def test_an_impossible_order_is_shown_all_the_same() -> None:
    kind = (m.Side.SELL, m.OrderType.LIMIT, m.TimeInForce.GTC, True, m.SelfTradePrevention.CANCEL_TAKER)
    place = m.Place(5, 6, 99, *kind, -1, -2, 0, 1)
    assert in_words(place, {}) == (
        "PLACE order 5 of user 6: SELL LIMIT GTC POST-ONLY -2 lots at -1 ticks, market 99"
    )
