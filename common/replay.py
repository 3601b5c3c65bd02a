"""Feeds every command on record to a fresh engine, and compares what that gives with the database.

All in one snapshot, so it works on an exchange that trades meanwhile: what is settled now is compared,
what waits above the watermark only counts for what it holds. The log and the rows to compare come from
cursors on the server, side by side in the order of their sequences; memory holds the engine (one more for
each point in the middle), the live orders, and one sum for each account.
"""

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from psycopg import AsyncServerCursor
from psycopg.rows import TupleRow

from common.core.differences import MOST_DIFFERENCES, Differences
from common.core.messages import Batch, Place, Skipped
from common.core.replay import (
    BOOKED,
    DIGESTED,
    LEFT,
    PLACED,
    TRADED,
    Account,
    PartitionReplay,
    compare_balances,
)
from common.core.sequencing import with_skips
from common.db import Connection
from common.restore import restore_within
from common.snapshot import one_snapshot
from common.stops import read_skips
from common.wire import Undecodable, decode_batch, encode_batch, encode_settlement

PROGRESS_S = 5.0
_LOG_ROWS, _ROWS = 100, 2_000  # Read at a time; a row of the log may hold thousands of commands.

_LOG_COLUMNS = "first_sequence, last_sequence, time_us, previous_chain, chain, commands"
_LOG = f"""
SELECT {_LOG_COLUMNS}, false AS archived FROM outbox WHERE partition = %(partition)s UNION ALL
SELECT {_LOG_COLUMNS}, true FROM outbox_archive WHERE partition = %(partition)s
ORDER BY first_sequence
"""  # noqa: S608
_PARTITIONS = """
SELECT s.partition, w.sequence, count(l.first_sequence) FROM shards s JOIN watermarks w USING (partition)
LEFT JOIN (SELECT partition, first_sequence, last_sequence FROM outbox UNION ALL
           SELECT partition, first_sequence, last_sequence FROM outbox_archive) l
    ON l.partition = s.partition AND l.last_sequence <= w.sequence
GROUP BY s.partition, w.sequence ORDER BY s.partition
"""
_ORDERS = """
SELECT {} FROM orders WHERE partition = %(partition)s AND sequence <= %(watermark)s
ORDER BY sequence, order_id
""".format(", ".join((*PLACED, *LEFT)).replace("client_order_id", "coalesce(client_order_id, '')"))
_TRADES = f"""
SELECT {", ".join(TRADED)} FROM trades WHERE partition = %(partition)s ORDER BY sequence, market_id, trade_id
"""  # noqa: S608
_LEDGER = """
SELECT coalesce(sequence, 0), user_id, asset_id, delta_atoms FROM ledger
WHERE kind = 3 AND partition = %(partition)s ORDER BY 1, ledger_id
"""
_DIGESTS = f"""
SELECT {", ".join(DIGESTED)} FROM book_digests WHERE partition = %(partition)s ORDER BY sequence, market_id
"""  # noqa: S608
_DEPOSITS = """
SELECT user_id, asset_id, sum(delta_atoms)::bigint FROM ledger
WHERE kind IN (1, 2) AND user_id <> 0 GROUP BY 1, 2
"""
_PENDING = "SELECT user_id, asset_id, sum(atoms)::bigint FROM withdrawals WHERE status = 1 GROUP BY 1, 2"
_ACCOUNTS = "SELECT user_id, asset_id, available_atoms, held_atoms FROM accounts"
_ARCHIVE_BYTES = "SELECT pg_total_relation_size('outbox_archive')"

Progress = Callable[[str], None]


@dataclass(slots=True)
class Partition:
    """What was replayed of one partition. `points`: the sequences where an engine was restored."""

    partition: int
    batches: int
    commands: int
    orders: int
    trades: int
    digests: int  # Of books, that came out the same.
    skipped: int  # Commands that an operator had passed over.
    points: list[int]
    waiting: int  # Commands above the watermark, which are not replayed.
    complete: bool  # False: broken off where a batch could not be applied.


@dataclass(slots=True)
class Report:
    """The outcome. Bytes are of the log: all of its commands, and the archive's table on disk."""

    seed: int
    partitions: list[Partition] = field(default_factory=list)
    accounts: int = 0
    seconds: float = 0.0
    command_bytes: int = 0
    archive_bytes: int = 0
    archived_orders: int = 0
    archived_commands: int = 0
    differences: Differences = field(default_factory=Differences)

    @property
    def ok(self) -> bool:
        return self.differences.count == 0

    @property
    def orders(self) -> int:
        return sum(one.orders for one in self.partitions)

    @property
    def digests(self) -> int:
        return sum(one.digests for one in self.partitions)

    @property
    def commands(self) -> int:
        return sum(one.commands for one in self.partitions)


@dataclass(frozen=True, slots=True)
class _Logged:
    """A row of the log; `batch` is None when its bytes cannot be what TX1 wrote, for the reason `why`."""

    first_sequence: int
    last_sequence: int
    batch: Batch | None
    why: str
    command_bytes: int
    archived: bool


class _Rows:
    """Rows of a cursor in the order of their sequences, which stand in the first column."""

    def __init__(self, cursor: AsyncServerCursor[TupleRow], most: int) -> None:
        self._cursor = cursor
        self._most = most
        self._buffer: deque[TupleRow] = deque()

    async def next(self) -> TupleRow | None:
        if not self._buffer:
            self._buffer.extend(await self._cursor.fetchmany(self._most))
        return self._buffer.popleft() if self._buffer else None

    async def through(self, sequence: int) -> list[TupleRow]:
        """The rows up to this sequence that have not been given yet."""
        rows: list[TupleRow] = []
        while (row := await self.next()) is not None:
            if row[0] > sequence:
                self._buffer.appendleft(row)
                break
            rows.append(row)
        return rows


async def replay(connection: Connection, *, points: int, seed: int, progress: Progress) -> Report:
    """Replay every partition; `points` engines are restored at random places, drawn from `seed`.

    In one snapshot; the connection is not inside a transaction yet.
    """
    async with one_snapshot(connection):
        return await replay_within(connection, points=points, seed=seed, progress=progress)


async def replay_within(connection: Connection, *, points: int, seed: int, progress: Progress) -> Report:
    """The same in the transaction of the caller."""
    report, started_s = Report(seed), time.monotonic()
    partitions = await (await connection.execute(_PARTITIONS.encode())).fetchall()
    random = Random(seed)  # noqa: S311  # No secret.
    chosen = _choose(random, points, [int(row[2]) for row in partitions])
    replays = []
    for (partition, watermark, _), places in zip(partitions, chosen, strict=True):
        run = _Run(connection, partition, watermark, set(places), report, progress)
        replays.append(await run.run())
    await _balances(connection, replays, report)
    sized = await (await connection.execute(_ARCHIVE_BYTES.encode())).fetchone()
    assert sized is not None
    report.archive_bytes = int(sized[0])
    report.seconds = time.monotonic() - started_s
    return report


def _choose(random: Random, points: int, batches: Sequence[int]) -> list[list[int]]:
    """For each partition, after how many of its batches; all batches are equally likely."""
    chosen: list[list[int]] = [[] for _ in batches]
    ends = [sum(batches[: index + 1]) for index in range(len(batches))]
    for place in random.sample(range(sum(batches)), min(points, sum(batches))):
        index = bisect_right(ends, place)
        chosen[index].append(place - (ends[index] - batches[index]))
    return chosen


async def _balances(connection: Connection, replays: Sequence[PartitionReplay], report: Report) -> None:
    """A partition that broke off moved more than was replayed, so nothing can be said then."""
    if any(one.broken for one in replays):
        return
    deposits, pending = await _sums(connection, _DEPOSITS), await _sums(connection, _PENDING)
    accounts: dict[Account, tuple[int, int]] = {}
    for user_id, asset_id, available, held in await (await connection.execute(_ACCOUNTS.encode())).fetchall():
        accounts[user_id, asset_id] = (available, held)
    report.accounts = len(accounts)
    compare_balances(report.differences, replays, deposits, pending, accounts)


async def _sums(connection: Connection, query: str) -> dict[Account, int]:
    cursor = await connection.execute(query.encode())
    return {(user_id, asset_id): atoms for user_id, asset_id, atoms in await cursor.fetchall()}


class _Run:
    """The replay of one partition: reads the streams side by side and hands them over by batch."""

    def __init__(
        self,
        connection: Connection,
        partition: int,
        watermark: int,
        places: set[int],
        report: Report,
        progress: Progress,
    ) -> None:
        self._connection = connection
        self._partition = partition
        self._watermark = watermark
        self._places = places
        self._report = report
        self._progress = progress
        self._replay = PartitionReplay(partition, encode_settlement, report.differences)
        self._batches = self._waiting = self._skipped = 0
        self._told_s = self._began_s = time.monotonic()

    async def run(self) -> PartitionReplay:
        given = {"partition": self._partition, "watermark": self._watermark}
        async with (
            self._connection.cursor("replay_log") as log,
            self._connection.cursor("replay_orders") as orders,
            self._connection.cursor("replay_trades") as trades,
            self._connection.cursor("replay_ledger") as ledger,
            self._connection.cursor("replay_digests") as digests,
        ):
            queries = ((log, _LOG), (orders, _ORDERS), (trades, _TRADES), (ledger, _LEDGER))
            for cursor, query in (*queries, (digests, _DIGESTS)):
                await cursor.execute(query.encode(), given)
            rows = {
                "order": (_Rows(orders, _ROWS), (*PLACED, *LEFT)),
                "trade": (_Rows(trades, _ROWS), TRADED),
                "ledger row": (_Rows(ledger, _ROWS), BOOKED),
                "digest": (_Rows(digests, _ROWS), DIGESTED),
            }
            await self._follow(_Rows(log, _LOG_ROWS), [stream for stream, _ in rows.values()])
            if not self._replay.broken:
                for source, (stream, columns) in rows.items():
                    await self._beyond(source, stream, columns)
        if not self._replay.broken:
            self._replay.finish((await restore_within(self._connection, self._partition)).snapshot)
        self._report.partitions.append(self._summary())
        return self._replay

    async def _follow(self, log: _Rows, streams: Sequence[_Rows]) -> None:
        replay = self._replay
        skips = await read_skips(self._connection, self._partition)
        while not replay.broken and (row := await log.next()) is not None:
            logged = _logged(self._partition, row)
            if logged.batch is None:
                replay.break_off(f"the batch {logged.first_sequence} to {logged.last_sequence}", logged.why)
                return
            if logged.first_sequence > self._watermark:
                self._waiting += len(logged.batch.commands)
                replay.waiting(logged.batch)
                continue
            self._count(logged)
            rows = [await stream.through(logged.last_sequence) for stream in streams]
            batch = with_skips(logged.batch, skips)
            replay.step(batch, *rows)
            self._skipped += sum(isinstance(one, Skipped) for one in batch.commands)
            self._batches += 1
            if self._batches - 1 in self._places and not replay.broken:
                replay.point()
            self._tell()
        if not replay.broken and replay.engine.sequence != self._watermark:
            replay.break_off("the log", f"ends at {replay.engine.sequence}, settled are {self._watermark}")

    def _count(self, logged: _Logged) -> None:
        assert logged.batch is not None
        self._report.command_bytes += logged.command_bytes
        if logged.archived:
            self._report.archived_commands += len(logged.batch.commands)
            self._report.archived_orders += sum(isinstance(one, Place) for one in logged.batch.commands)

    async def _beyond(self, source: str, stream: _Rows, columns: Sequence[str]) -> None:
        for _ in range(MOST_DIFFERENCES):
            row = await stream.next()
            if row is None:
                return
            self._replay.beyond(source, row, columns)

    def _tell(self) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s >= PROGRESS_S:
            self._told_s = now_s
            rate = self._replay.commands / (now_s - self._began_s)
            self._progress(
                f"partition {self._partition}: {self._replay.commands:,} of about {self._watermark:,}"
                f" commands, {rate:,.0f} a second"
            )

    def _summary(self) -> Partition:
        replay = self._replay
        return Partition(
            self._partition,
            self._batches,
            replay.commands,
            replay.orders,
            replay.trades,
            replay.digests,
            self._skipped,
            replay.points,
            self._waiting,
            not replay.broken,
        )


def _logged(partition: int, row: TupleRow) -> _Logged:
    """Read as the engine would: as the record of exchange.orders that the relay makes of it."""
    first_sequence, last_sequence, time_us, previous_chain, chain, commands, archived = row
    batch: Batch | None = None
    why = ""
    try:
        batch = decode_batch(
            encode_batch(
                partition=partition,
                first_sequence=first_sequence,
                time_us=time_us,
                previous_chain=previous_chain,
                chain=chain,
                commands=commands,
            )
        )
        if batch.last_sequence != last_sequence:
            why = f"it has {len(batch.commands)} commands"
            batch = None
    except Undecodable as error:
        why = str(error)
    return _Logged(first_sequence, last_sequence, batch, why, len(commands), archived)
