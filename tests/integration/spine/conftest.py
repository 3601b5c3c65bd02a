from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from daemons.local.servers import Servers
from tests.harness.exchange import Exchange, running_exchange
from tests.integration.spine.spine import MATCHINGS, ORDER_SERVICE, Spine, spine_of


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # grpc.aio, psycopg and aiokafka need it.


@pytest.fixture(scope="package")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spine")


@pytest.fixture(scope="package")
def half_exchange(servers: Servers, logs: Path) -> Iterator[Exchange]:
    """One order-service and two matchings; each test leaves them running."""
    with running_exchange(servers, logs, ready=False) as exchange:
        exchange.start(ORDER_SERVICE, *MATCHINGS)
        yield exchange


@pytest.fixture
async def spine(half_exchange: Exchange) -> AsyncIterator[Spine]:
    async with spine_of(half_exchange) as spine:
        yield spine
        await spine.check()
