"""`exchange partition`: what a partition does, why it stands still, and how a person lets it go on.

`show` reads PostgreSQL alone, in one snapshot; `resume` and `skip` are the acts of `common.stops`. A command
that waits is shown as people read it, with its sequence, by which it can be skipped.
"""

import argparse
import json
from dataclasses import asdict, dataclass, field
from datetime import datetime

from psycopg.rows import class_row

from common import audit_log, stops
from common.admin import list_markets
from common.audit_log import Actor, Argument
from common.config import Settings
from common.core.errors import Malformed, NotFound
from common.core.messages import Cancel, CancelAll, Command, Market, OrderType, Place, SetMarket, Side
from common.core.units import atoms_to_text, price_to_text, qty_to_text
from common.db import Connection, connect
from common.snapshot import one_snapshot
from common.stops import Stop
from common.wire import Undecodable, decode_commands
from daemons.local.operator import quiet, reachable_postgres, user_name
from daemons.local.process import Progress

MOST_COMMANDS, MOST_ACTS = 100, 10  # In the text; `--json` has all commands.

_PARTITIONS = """
SELECT s.partition, s.last_sequence AS sequence, w.sequence AS watermark, c.next_sequence - 1 AS cursor
FROM shards s JOIN watermarks w USING (partition) JOIN relay_cursors c USING (partition)
WHERE %(all)s OR s.partition = %(partition)s ORDER BY s.partition
"""
_LEADERS = """
SELECT partition, service, holder, fencing_token AS token, expires_at > clock_timestamp() AS live
FROM partition_leader_locks ORDER BY partition, service
"""
_ACTS = """
SELECT partition, act, reason, operator, topic, kafka_offset AS offset, length(record) AS record_bytes,
       sequence, acted_at FROM operator_acts ORDER BY act_id DESC
"""
_NEXT_BATCH = """
SELECT o.first_sequence, o.last_sequence, o.commands FROM outbox o JOIN watermarks w USING (partition)
WHERE o.partition = %s AND o.first_sequence = w.sequence + 1
"""


@dataclass(frozen=True, slots=True)
class Leader:
    """Who holds a lease, or held it last (`live` false)."""

    partition: int
    service: str
    holder: str
    token: int
    live: bool


@dataclass(frozen=True, slots=True)
class Act:
    """What an operator did, the newest first; `record_bytes` is the size of a record that is kept."""

    partition: int
    act: str
    reason: str
    operator: str
    topic: str | None
    offset: int | None
    record_bytes: int | None
    sequence: int | None
    acted_at: datetime


@dataclass(frozen=True, slots=True)
class Waiting:
    """A command of the batch after the watermark, in words."""

    sequence: int
    command: str
    skipped: bool


@dataclass(slots=True)
class Partition:
    """Sequences: given out by TX1, settled by TX2 (the watermark), sent by the relay (its cursor)."""

    partition: int
    sequence: int
    watermark: int
    cursor: int
    leaders: list[Leader] = field(default_factory=list)
    stops: list[Stop] = field(default_factory=list)
    acts: list[Act] = field(default_factory=list)
    next_batch: list[Waiting] = field(default_factory=list)


async def run_partition(arguments: argparse.Namespace, settings: Settings, progress: Progress) -> None:
    """Raises NotFound for a partition that there is not, and what `common.stops` refuses."""
    async with (
        reachable_postgres(settings, quiet) as url,
        connect(url, "exchange partition") as connection,
    ):
        if arguments.action == "show":
            found = await read_partitions(connection, arguments.partition)
            progress(as_json(found) if arguments.json else as_text(found, arguments.partition is not None))
            return
        await _act(connection, arguments, progress)


async def _act(connection: Connection, arguments: argparse.Namespace, progress: Progress) -> None:
    """Written down twice: with what stood still, by `common.stops`, and in the audit log."""
    act = stops.Act(arguments.partition, arguments.operator or user_name(), arguments.reason)
    said: dict[str, Argument] = {"reason": act.reason, "operator": act.operator}
    if arguments.action == "skip":
        said |= {"record": arguments.record, "sequence": arguments.sequence, "force": arguments.force}
    row = audit_log.Act(f"partition {arguments.action}", f"partition {act.partition}", said)
    async with audit_log.recorded(connection, Actor(user_name(), audit_log.CLI), row):
        if arguments.action == "resume":
            await stops.resume(connection, act)
            without = ""
        elif arguments.record is not None:
            topic, offset = _place_of(arguments.record)
            await stops.skip_record(connection, act, topic, offset)
            without = f" without the record {topic}:{offset}, which is kept"
        else:
            await stops.skip_command(connection, act, arguments.sequence, force=arguments.force)
            without = f" without the command {arguments.sequence}"
    progress(f"Partition {act.partition} goes on{without}.")


async def read_partitions(connection: Connection, partition: int | None = None) -> list[Partition]:
    """All, or the one; raises NotFound."""
    async with one_snapshot(connection):
        given = {"all": partition is None, "partition": partition}
        cursor = await connection.execute(_PARTITIONS, given)
        found = {row[0]: Partition(*row) for row in await cursor.fetchall()}
        if partition is not None and not found:
            raise NotFound(f"There is no partition {partition}")
        async with connection.cursor(row_factory=class_row(Leader)) as leaders:
            async for leader in await leaders.execute(_LEADERS):
                if leader.partition in found:
                    found[leader.partition].leaders.append(leader)
        async with connection.cursor(row_factory=class_row(Act)) as acts:
            async for act in await acts.execute(_ACTS):
                if act.partition in found:
                    found[act.partition].acts.append(act)
        for stop in await stops.read_stops(connection):
            if stop.partition in found:
                found[stop.partition].stops.append(stop)
        markets = {market.market_id: market for market, _ in await list_markets(connection)}
        for one in found.values():
            one.next_batch = await _read_next_batch(connection, one.partition, markets)
    return list(found.values())


async def _read_next_batch(
    connection: Connection, partition: int, markets: dict[int, Market]
) -> list[Waiting]:
    row = await (await connection.execute(_NEXT_BATCH, [partition])).fetchone()
    if row is None:
        return []
    first_sequence, last_sequence, data = row
    try:
        commands = decode_commands(data)
    except Undecodable as error:
        return [Waiting(first_sequence, f"to {last_sequence}: cannot be read: {error}", False)]
    skips = await stops.read_skips(connection, partition)
    return [
        Waiting(sequence, in_words(command, markets), sequence in skips)
        for sequence, command in enumerate(commands, first_sequence)
    ]


def in_words(command: Command, markets: dict[int, Market]) -> str:
    """A command as people read it; what is impossible about it must not hinder that."""
    if isinstance(command, Place):
        return _place_in_words(command, markets.get(command.market_id))
    if isinstance(command, Cancel):
        return f"CANCEL order {command.order_id} of user {command.user_id}"
    if isinstance(command, CancelAll):
        market = markets.get(command.market_id)
        where = market.symbol if market else (f"market {command.market_id}" if command.market_id else "all")
        return f"CANCEL ALL of user {command.user_id}, {where}"
    if isinstance(command, SetMarket):
        set_to = command.market
        return (
            f"SET MARKET {set_to.symbol}: {set_to.status.name},"
            f" fees {set_to.maker_fee_bps}/{set_to.taker_fee_bps} bps"
        )
    return f"NOOP {command.reason}"


def _place_in_words(place: Place, market: Market | None) -> str:
    words = f"PLACE order {place.order_id} of user {place.user_id}: {place.side.name} {place.type.name}"
    words += f" {place.time_in_force.name}{' POST-ONLY' if place.post_only else ''}"
    sizes = (place.price_ticks, place.qty_lots, place.quote_atoms, place.hold_atoms)
    if market is None or min(sizes) < 0:
        return f"{words} {place.qty_lots} lots at {place.price_ticks} ticks, market {place.market_id}"
    paying = market.quote if place.side is Side.BUY else market.base
    size = qty_to_text(market, place.qty_lots)
    if place.quote_atoms:
        size = f"for {atoms_to_text(market.quote, place.quote_atoms)} {market.quote.symbol} of"
    limit = f" at {price_to_text(market, place.price_ticks)}" if place.type is OrderType.LIMIT else ""
    return (
        f"{words} {size} {market.symbol}{limit}, holds {atoms_to_text(paying, place.hold_atoms)}"
        f" {paying.symbol}"
    )


def as_json(partitions: list[Partition]) -> str:
    return json.dumps([asdict(one) for one in partitions], indent=2, default=str)


def as_text(partitions: list[Partition], in_full: bool) -> str:
    """The commands that wait and what operators did: of a partition that is asked for, or stands still."""
    lines = []
    for one in partitions:
        lines += _lines(one, in_full or bool(one.stops))
    return "\n".join(lines)


def _lines(one: Partition, in_full: bool) -> list[str]:
    lines = [
        f"partition {one.partition}: sequence {one.sequence:,}, watermark {one.watermark:,},"
        f" relay's cursor {one.cursor:,}" + ("; STOPPED" if one.stops else "")
    ]
    for leader in one.leaders:
        led = "led" if leader.live else "last led"
        lines.append(f"    {leader.service} {led} by {leader.holder}, token {leader.token}")
    for stop in one.stops:
        lines.append(f"    {stop.service} stands still since {stop.stopped_at:%Y-%m-%d %H:%M:%S}")
        lines.append(f"        {stop.reason}")
        if stop.topic is not None:
            lines.append(
                f"        at the record {stop.topic}:{stop.offset} ({stop.record_bytes or 0:,} bytes)"
            )
    if not in_full:
        return lines
    if one.next_batch:
        lines.append("    next to settle:")
    for waiting in one.next_batch[:MOST_COMMANDS]:
        lines.append(f"        {waiting.sequence}  {waiting.command}{'; SKIPPED' if waiting.skipped else ''}")
    if len(one.next_batch) > MOST_COMMANDS:
        lines.append(f"        ... and {len(one.next_batch) - MOST_COMMANDS:,} more (--json shows all)")
    for act in one.acts[:MOST_ACTS]:
        what = f" {act.topic}:{act.offset}" if act.topic else f" {act.sequence}" if act.sequence else ""
        lines.append(f"    {act.acted_at:%Y-%m-%d %H:%M:%S} {act.act}{what} by {act.operator}: {act.reason}")
    return lines


def _place_of(text: str) -> tuple[str, int]:
    topic, _, offset = text.rpartition(":")
    if not topic or not offset.isdigit():
        raise Malformed(f"{text} is not TOPIC:OFFSET, such as exchange.orders:17")
    return topic, int(offset)
