"""Who did what to the exchange: an append-only table, in which each row's hash covers the one before it.

`recorded` writes the row in the transaction of the act, so that there is none without the other; what was
refused has a row too. PostgreSQL itself refuses to change or remove a row (migration 0010), and `exchange
audit` checks the hashes.

Does not promise: anything against the owner of the database, who can make the whole table again. Who keeps
the newest hash elsewhere from time to time would see that.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from common.core.errors import ExchangeError
from common.db import Connection

DONE, REPEATED = "done", "repeated"
CLI, GRPC = "cli", "grpc"
MOST_LETTERS, MOST_WORDS = 300, 50

Argument = str | int | bool | list[str] | None

_APPEND = """
INSERT INTO audit_log (actor, via, act, target, arguments, outcome) VALUES (%s, %s, %s, %s, %s, %s)
"""
_READ = """
SELECT entry_id, at, actor, via, act, target, arguments, outcome, hash FROM audit_log
WHERE %(before)s::bigint IS NULL OR entry_id < %(before)s ORDER BY entry_id DESC LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: the system's user on the command line, the certificate's holder over gRPC."""

    name: str
    via: str


@dataclass(slots=True)
class Act:
    """What the row will say; whoever acts may fill in what is known only then. Arguments hold no secrets."""

    name: str
    target: str
    arguments: dict[str, Argument] = field(default_factory=dict)
    outcome: str = DONE


@dataclass(frozen=True, slots=True)
class Entry:
    """A row."""

    entry_id: int
    at: datetime
    actor: str
    via: str
    act: str
    target: str
    arguments: Mapping[str, Argument]
    outcome: str
    hash: bytes


@asynccontextmanager
async def recorded(connection: Connection, actor: Actor, act: Act) -> AsyncIterator[Act]:
    """A transaction around the body, which is the act; its row is the last thing in it.

    An ExchangeError of the body rolls back, is written down as the outcome, and goes on. The body must not
    be another's transaction already: the lock on the log would be held for as long as that.
    """
    try:
        async with connection.transaction():
            yield act
            await _append(connection, actor, act, act.outcome)
    except ExchangeError as error:
        await _append(connection, actor, act, error.code)
        raise


async def _append(connection: Connection, actor: Actor, act: Act, outcome: str) -> None:
    arguments = {name: _kept(value) for name, value in act.arguments.items()}
    row = [_text(actor.name), actor.via, act.name, _text(act.target), Jsonb(arguments), outcome]
    await connection.execute(_APPEND, row)


def _kept(value: Argument) -> Argument:
    if isinstance(value, str):
        return _text(value)
    return [_text(one) for one in value[:MOST_WORDS]] if isinstance(value, list) else value


def _text(given: str) -> str:
    """What can stand in the table of any text: what was refused may be long, and hold what no text does."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in given[:MOST_LETTERS])


async def read_audit_log(
    connection: Connection, *, limit: int = 100, before_id: int | None = None
) -> list[Entry]:
    """The newest rows, newest first; older than one of them, where asked for."""
    async with connection.cursor(row_factory=class_row(Entry)) as cursor:
        await cursor.execute(_READ, {"before": before_id, "limit": limit})
        return await cursor.fetchall()
