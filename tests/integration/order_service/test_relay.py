"""The relay goes on, whatever the size of its backlog."""

from collections.abc import Sequence

import anyio
import pytest

from common.kafka import Message
from daemons.order_service import relay
from daemons.order_service.relay import Relays, relay_partition
from tests.integration.order_service.committing import until
from tests.integration.order_service.desk import Desk

pytestmark = pytest.mark.anyio

BATCHES = 60
_BACKLOG = """
INSERT INTO outbox SELECT 3, n, n, n, %s, %s, 'commands' FROM generate_series(1, %s) n
"""


class Slow:
    """A producer that takes as long as a record is large; none is acknowledged when it is interrupted."""

    def __init__(self) -> None:
        self.sent = 0

    async def send_many(self, messages: Sequence[Message]) -> list[int]:
        await anyio.sleep(0.01 * len(messages))
        first, self.sent = self.sent, self.sent + len(messages)
        return list(range(first, self.sent))


async def test_a_backlog_too_large_for_one_transaction_goes_out_in_pieces(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "PUBLISH_S", 0.2)
    await desk.connection.execute(_BACKLOG, [bytes(32), bytes(32), BATCHES])

    async def all_sent() -> bool:
        found = await desk.rows("SELECT next_sequence FROM relay_cursors WHERE partition = 3")
        return found == [(BATCHES + 1,)]

    slow = Slow()
    async with anyio.create_task_group() as group:
        group.start_soon(relay_partition, desk.url, slow, "orders", Relays(4), 3)  # type: ignore[arg-type]  # as much of a producer as it needs
        await until(all_sent)
        group.cancel_scope.cancel()
    assert slow.sent == BATCHES
