"""Every daemon in turn is drained and started again, while users trade: they hardly notice."""

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from common import db
from common.audit import audit
from common.replay import replay
from daemons.local.servers import Servers
from tests.harness.exchange import Exchange, running_exchange
from tests.integration.failover.traders import trading

pytestmark = pytest.mark.anyio

LONGEST_S = 1.0  # Without a new trade in a market.
BETWEEN_S = 1.0  # Of trading after each restart.
SETTLED_S = 15.0

_BEHIND = "SELECT sum(last_sequence - sequence) FROM shards JOIN watermarks USING (partition)"


@pytest.fixture
def pair(servers: Servers, tmp_path: Path) -> Iterator[Exchange]:
    """An exchange with two of each daemon."""
    with running_exchange(servers, tmp_path, gateways=2, order_services=2, market_datas=2) as running:
        yield running


async def _roll(exchange: Exchange, name: str) -> None:
    code = await anyio.to_thread.run_sync(exchange.terminate, name)
    assert code == 0, exchange.daemons[name].tail()
    exchange.start(name)
    await anyio.to_thread.run_sync(exchange.wait_ready)


async def _settle(connection: db.Connection) -> None:
    with anyio.fail_after(SETTLED_S):
        while await (await connection.execute(_BEHIND)).fetchone() != (0,):
            await anyio.sleep(0.05)


async def test_no_restart_is_noticed(pair: Exchange, seed: int) -> None:
    async with trading(pair, seed) as (told, flows):
        told.what = "the beginning"
        await anyio.sleep(BETWEEN_S)
        for name in pair.daemons:
            told.what = f"restart of {name}"
            await _roll(pair, name)
            await anyio.sleep(BETWEEN_S)
    print(told, flows)
    assert told.wrong == []
    assert told.statuses[202] > 1_000, told
    for flow in flows.values():
        assert 0 < flow.longest_s <= LONGEST_S, flow  # 0: it saw no trade.
    async with db.connect(pair.settings.postgres_url, "rolling test") as connection:
        await _settle(connection)
        assert [finding for finding in await audit(connection) if not finding.ok] == []
        report = await replay(connection, points=2, seed=seed, progress=print)
        assert report.ok, report
