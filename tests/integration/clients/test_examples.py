"""The examples as programs, by the commands of the README: on one exchange, trading with each other."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from examples import recorder

from exchange_client import BookSnapshot, OrderBook, TradesEvent
from tests.harness.exchange import Exchange
from tests.integration.end_to_end.shop import until

ROOT = Path(__file__).parents[3]
CLIENT = ROOT / "clients/python"
WAIT_S = 60.0  # Two cores, and everybody is starting something.
COMMANDS = {
    words[1].rpartition("/")[2] + (f" {words[2]}" if words[2] in ("record", "rebuild") else ""): words[1:]
    for line in (CLIENT / "README.md").read_text().splitlines()
    if (words := line.split())[:1] == ["python"]
}


class Program:
    """A running example."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self._process = process
        self._output = output

    def said(self) -> str:
        return self._output.read_text()

    def wait_for(self, text: str) -> None:
        until(self.said, lambda said: text in said or not self.runs(), WAIT_S)
        assert text in self.said(), self.said()

    def runs(self) -> bool:
        return self._process.poll() is None

    def interrupt(self) -> int:
        self._process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> int:
        return self._process.wait(WAIT_S)


@contextmanager
def started(name: str, folder: Path, *more: str) -> Iterator[Program]:
    """The README's command of this name, in a folder of its own."""
    output = folder / f"{name}.txt"
    path, *arguments = COMMANDS[name]
    environment = os.environ | {"PYTHONPATH": str(CLIENT), "EXCHANGE_TOKEN": ""}
    with (
        output.open("wb") as file,
        subprocess.Popen(
            [sys.executable, str(ROOT / path), *arguments, *more],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
        ) as process,
    ):
        try:
            yield Program(process, output)
        finally:
            process.kill()


def test_a_maker_a_taker_and_a_recorder(exchange: Exchange, tmp_path: Path) -> None:
    url = ("--url", exchange.base_url)
    file = tmp_path / "market.jsonl"
    with (
        started("recorder.py record", tmp_path, *url) as recording,
        started("market_maker.py", tmp_path, *url) as maker,
    ):
        maker.wait_for("quoting")
        with started("taker.py", tmp_path, *url) as taker:
            assert taker.end() == 0, taker.said()
        assert "FILLED: BUY 0.00500 for" in taker.said()
        assert "0.00500 at" in taker.said()
        maker.wait_for("SELL 0.00500 at")
        asked = _recorded(exchange, file)
        assert len(asked.bids) >= 1
        assert _rebuilt(file).bids() == asked.bids
        assert _rebuilt(file).asks() == asked.asks
        assert maker.interrupt() == 0, maker.said()
        assert "canceling 2 orders" in maker.said()
        last = until(lambda: _recorded(exchange, file), lambda book: book.asks == [], WAIT_S)
        assert recording.interrupt() == 0, recording.said()
    _check_the_trades(file)
    with started("recorder.py rebuild", tmp_path) as rebuilding:
        assert rebuilding.end() == 0
    assert f"BTC-USD at {last.sequence}" in rebuilding.said()


def _recorded(exchange: Exchange, file: Path) -> BookSnapshot:
    """The book as the exchange shows it, once the file is as far."""

    def look() -> tuple[BookSnapshot, OrderBook]:
        answer = exchange.http.get("/api/v1/orderbook?symbol=BTC-USD&depth=1000")
        return msgspec.json.decode(answer.content, type=BookSnapshot), _rebuilt(file)

    return until(look, lambda seen: seen[0].sequence == seen[1].sequence, WAIT_S)[0]


def _rebuilt(file: Path) -> OrderBook:
    with file.open("rb") as lines:
        return recorder.rebuild(recorder.events_in(lines), "BTC-USD")


def _check_the_trades(file: Path) -> None:
    """Each once, without a hole."""
    with file.open("rb") as lines:
        events = list(recorder.events_in(lines))
    trades = [trade for event in events if isinstance(event, TradesEvent) for trade in event.trades]
    ids = [int(trade.trade_id) for trade in trades if trade.symbol == "BTC-USD"]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
