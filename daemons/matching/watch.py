"""What is settled, told to the replicas of this process: one look at PostgreSQL for all of them."""

from collections.abc import Mapping

import anyio

from common import db
from common.telemetry import get_logger
from daemons.matching.following import Following, Outdated
from daemons.matching.kept import Forked
from daemons.matching.replica import LOOK_EVERY_S, Replica
from daemons.matching.settled import Settled, read_digests, read_settled
from daemons.matching.surroundings import Behind

# An engine that stands for so long behind the watermark waits for records that will not come.
BEHIND_LOOKS = 6

log = get_logger(__name__)


class Watch:
    """`run` looks twice a second; an engine that cannot be right is told to start again."""

    def __init__(self, pool: db.Pool, replicas: Mapping[int, Replica]) -> None:
        self._pool = pool
        self._replicas = replicas
        self._behind: dict[int, tuple[int, int]] = {}  # Partition: the engine's sequence, looks since.
        self._highest: dict[int, int] = {}  # Partition: the watermark at the last look.

    async def run(self) -> None:
        while True:
            await anyio.sleep(LOOK_EVERY_S)
            try:
                async with self._pool.connection() as connection:
                    await self._look(connection)
            except Exception as error:
                if not db.is_transient(error):
                    raise
                log.warning("watermarks not seen", error=str(error))

    async def _look(self, connection: db.Connection) -> None:
        found = await read_settled(connection, list(self._replicas))
        asked: list[tuple[Replica, Following, list[int]]] = []
        for partition, replica in self._replicas.items():
            self._tell(replica, found[partition])
            following = replica.following
            if following is not None and (wanted := following.wanted_digests()):
                asked.append((replica, following, wanted))
        if not asked:
            return
        digests = await read_digests(
            connection, [(replica.partition, at) for replica, _, wanted in asked for at in wanted]
        )
        for replica, following, wanted in asked:
            own = {at: markets for (number, at), markets in digests.items() if number == replica.partition}
            try:
                following.compare_digests(wanted, own)
            except Forked as error:
                if replica.following is following:
                    replica.start_again(error)

    def _tell(self, replica: Replica, now: Settled) -> None:
        following = replica.following
        highest = self._highest.get(replica.partition, 0)
        self._highest[replica.partition] = now.sequence
        if following is None:
            return
        try:
            if now.sequence < highest:
                raise Forked(f"the watermark went back to {now.sequence}: PostgreSQL has lost commits")
            following.settled(now)
            self._check_behind(replica.partition, following.engine.sequence, now.sequence)
        except (Forked, Outdated, Behind) as error:
            replica.start_again(error)

    def _check_behind(self, partition: int, sequence: int, watermark: int) -> None:
        before, looks = self._behind.get(partition, (sequence, 0))
        looks = looks + 1 if sequence < watermark and sequence == before else 0
        self._behind[partition] = (sequence, looks)
        if looks >= BEHIND_LOOKS:
            self._behind[partition] = (sequence, 0)
            raise Behind(f"the watermark is {watermark}, this engine stands at {sequence}")
