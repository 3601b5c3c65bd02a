"""Several statements in one round trip: written to the server in one piece, and prepared once for a session.

psycopg's pipeline writes each statement by itself, waits for the socket and wakes the server each time; for
the short transactions that everything waits for, that is most of their cost. Here libpq is told all of them
first (psycopg.pq's pipeline mode), and then there is one write and one wait.

Does not promise: adaptation. A parameter is a number, a text or bytes; what it means, the statement says.
"""

from collections.abc import Sequence
from itertools import count

from psycopg import errors, generators, pq
from psycopg.abc import PQGen
from psycopg.adapt import Transformer
from psycopg.pq.abc import PGconn, PGresult
from psycopg.rows import TupleRow

from common.db import Connection

Param = int | str | bytes | None
# Of the names of prepared statements, so that several `Trips` may use one session.
_NUMBERS = count(1)

# A statement, with %s for each parameter, and its parameters. One without any is not prepared.
Asked = tuple[str, Sequence[Param]]


class Trips:
    """Owns the statements of one session. Its `connection` may be used otherwise too, between two trips.

    But not for a rollback: psycopg's own makes the server forget every statement. `rollback` does not.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._names: dict[str, bytes] = {}

    async def go(self, asked: Sequence[Asked]) -> list[list[TupleRow]]:
        """Run the statements in their order and give the rows of each.

        Raises psycopg's error for the first one that fails, and those after it have not run then.
        """
        new = {statement: b"" for statement, given in asked if given and statement not in self._names}
        for statement in new:
            new[statement] = b"trip_%d" % next(_NUMBERS)
        known, self._names = self._names, {}  # What an error leaves is prepared again, under a new name.
        async with self.connection.lock:
            results = await self.connection.wait(self._round(asked, known | new, new))
        self._names = known | new
        loader = Transformer(self.connection)
        rows = []
        for result in results[len(new) :]:
            loader.set_pgresult(result)
            rows.append(loader.load_rows(0, result.ntuples, tuple))
        return rows

    async def rollback(self) -> None:
        await self.go([("ROLLBACK", ())])

    def _round(
        self, asked: Sequence[Asked], names: dict[str, bytes], new: dict[str, bytes]
    ) -> PQGen[list[PGresult]]:
        pgconn = self.connection.pgconn
        pgconn.enter_pipeline_mode()
        for statement, name in new.items():
            pgconn.send_prepare(name, _numbered(statement))
        for statement, given in asked:
            if given:
                _send(pgconn, names[statement], given)
            else:
                pgconn.send_query_params(statement.encode(), None, result_format=pq.Format.BINARY)
        pgconn.pipeline_sync()
        yield from generators.send(pgconn)
        results = []
        for _ in range(len(new) + len(asked)):
            results.append((yield from generators.fetch_many(pgconn)))
        yield from generators.fetch_many(pgconn)  # The synchronization's own.
        pgconn.exit_pipeline_mode()
        return [_checked(result) for result in results]


def _send(pgconn: PGconn, name: bytes, given: Sequence[Param]) -> None:
    pgconn.send_query_prepared(
        name,
        [_as_bytes(param) for param in given],
        [pq.Format.BINARY if isinstance(param, bytes) else pq.Format.TEXT for param in given],
        result_format=pq.Format.BINARY,
    )


def _as_bytes(param: Param) -> bytes | None:
    if param is None or isinstance(param, bytes):
        return param
    return str(param).encode()


def _numbered(statement: str) -> bytes:
    """As libpq wants it: $1 for the first %s, and so on."""
    first, *rest = statement.split("%s")
    return (first + "".join(f"${number}{text}" for number, text in enumerate(rest, 1))).encode()


def _checked(results: list[PGresult]) -> PGresult:
    if not results:
        raise errors.OperationalError("the server has gone")
    [result] = results
    if result.status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
        raise errors.error_from_result(result)
    return result
