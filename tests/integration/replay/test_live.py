"""Audit and replay beside an exchange that goes on: each sees one moment, whatever moves meanwhile."""

from random import Random

import anyio
import pytest

from common import db
from common.audit import audit
from common.replay import replay
from daemons.order_service.upkeep import archive
from tests.integration.order_service.desk import Desk
from tests.integration.order_service.traffic import Traffic

pytestmark = pytest.mark.anyio


async def _trade_on(desk: Desk, seed: int, going_on: list[int]) -> None:
    traffic = Traffic(desk, Random(seed), [await desk.user() for _ in range(4)])
    while True:
        await traffic.round(3)
        await traffic.settle()
        going_on[0] += 1


async def test_under_load_both_find_nothing(history: Desk, seed: int) -> None:
    rounds, looks = [0], []
    async with (
        db.connect(history.url, "exchange audit") as connection,
        db.pool(history.url, name="order-service test", max_size=1) as pool,
        anyio.create_task_group() as group,
    ):
        group.start_soon(archive, pool)
        group.start_soon(_trade_on, history, seed, rounds)
        for _ in range(6):
            before = rounds[0]
            assert [finding for finding in await audit(connection) if not finding.ok] == []
            report = await replay(connection, points=2, seed=seed, progress=print)
            assert report.differences.first == []
            looks.append((report.commands, rounds[0] - before))
        group.cancel_scope.cancel()
    commands = [one for one, _ in looks]
    assert commands[0] < commands[-1], "the log grew from look to look"
    assert any(meanwhile for _, meanwhile in looks), "the exchange settled while it was looked at"
