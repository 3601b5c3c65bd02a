"""A recorder: writes the trades and the books of markets to a file, an event a line, and reads them again.

    python recorder.py record market.jsonl --symbols BTC-USD ETH-USD
    python recorder.py rebuild market.jsonl --symbol BTC-USD

A line is an event as JSON. Trades are written once each, with their ids, so that a hole would show: the ids
of a market are consecutive. A book is written as snapshots and changes, which `rebuild` applies one by one.
It is public data: no user is needed.
"""

import argparse
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import anyio
import msgspec

from exchange_client import DepthEvent, Event, Exchange, OrderBook, SlowConsumer, TradesEvent

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Event).decode


class Tape:
    """Which trades of each market are written; a snapshot brings those again that were before."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    async def keep(self, event: TradesEvent, exchange: Exchange) -> TradesEvent | None:
        """The event with what is not written yet; None: nothing. What a snapshot lacks is asked for."""
        last = self._last.get(event.symbol)
        trades = event.trades
        if last is not None and trades and int(trades[0].trade_id) > last + 1:
            trades = (await exchange.trades(event.symbol, 1000))[::-1]
        trades = [trade for trade in trades if last is None or int(trade.trade_id) > last]
        if not trades:
            return None
        first, self._last[event.symbol] = int(trades[0].trade_id), int(trades[-1].trade_id)
        if last is not None and first != last + 1:
            print(f"{event.symbol}: trades {last + 1} to {first - 1} are lost", flush=True)
        return msgspec.structs.replace(event, trades=trades)


async def record(exchange: Exchange, symbols: Iterable[str], file: BinaryIO) -> None:
    """Until it is cancelled."""
    tape = Tape()
    channels = [f"{kind}:{symbol}" for symbol in symbols for kind in ("trades", "depth")]
    async with exchange.stream() as stream:
        events = stream.subscribe(*channels)
        while True:
            try:
                async for event in events:
                    kept = await tape.keep(event, exchange) if isinstance(event, TradesEvent) else event
                    if kept is not None:
                        file.write(_encode(kept) + b"\n")
                        file.flush()
            except SlowConsumer as slow:
                print(f"{slow}; going on with snapshots", flush=True)


def events_in(file: Iterable[bytes]) -> Iterator[Event]:
    """Line by line; a last line that was cut off is left out."""
    for line in file:
        if line.endswith(b"\n"):
            yield _decode(line)


def rebuild(events: Iterable[Event], symbol: str) -> OrderBook:
    """The book of a market after the last of these events."""
    book = OrderBook(symbol)
    for event in events:
        if isinstance(event, DepthEvent) and event.symbol == symbol:
            if not event.snapshot and event.previous != book.sequence:
                raise ValueError(f"{event.previous} does not follow {book.sequence}")
            book.apply(event.sequence, event.bids, event.asks, snapshot=event.snapshot)
    return book


async def run_record(args: argparse.Namespace) -> None:
    async with Exchange(args.url) as exchange:
        with args.file.open("ab") as file, anyio.move_on_after(args.seconds or float("inf")):
            async with anyio.create_task_group() as group:
                group.start_soon(end_on_signal, group.cancel_scope)
                await record(exchange, args.symbols, file)


async def end_on_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


def run_rebuild(args: argparse.Namespace) -> None:
    with args.file.open("rb") as file:
        book = rebuild(events_in(file), args.symbol)
    print(f"{args.symbol} at {book.sequence}")
    for level in reversed(book.asks(args.depth)):
        print(f"{'':>16} {level.price:>14} {level.quantity}")
    for level in book.bids(args.depth):
        print(f"{level.quantity:>16} {level.price:>14}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Record a market, and rebuild its book.")
    commands = parser.add_subparsers(required=True)
    recording = commands.add_parser("record", help="append events to a file")
    recording.add_argument("file", type=Path)
    recording.add_argument("--url", default="http://127.0.0.1:8100")
    recording.add_argument("--symbols", nargs="+", default=["BTC-USD", "ETH-USD"])
    recording.add_argument("--seconds", type=float, default=0, help="how long; 0: until Ctrl-C")
    recording.set_defaults(run=lambda args: anyio.run(run_record, args))
    rebuilding = commands.add_parser("rebuild", help="print the book after the last event")
    rebuilding.add_argument("file", type=Path)
    rebuilding.add_argument("--symbol", default="BTC-USD")
    rebuilding.add_argument("--depth", type=int, default=10)
    rebuilding.set_defaults(run=run_rebuild)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
