import gc
from collections.abc import AsyncIterator

import pytest

from daemons.local.servers import Servers
from tests.integration.market_data.stand import Stand, open_stand


@pytest.fixture
async def stand(servers: Servers, database: str) -> AsyncIterator[Stand]:
    async with open_stand(servers, database) as stand:
        yield stand
    # A connection attempt that was cancelled is closed by the collector, and until then the server, which
    # waits a minute for its password, does not let the database be dropped.
    gc.collect()
