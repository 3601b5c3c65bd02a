from collections.abc import AsyncIterator

import pytest

from daemons.local.servers import Servers
from tests.integration.market_data.stand import Stand, open_stand


@pytest.fixture
async def stand(servers: Servers, database: str) -> AsyncIterator[Stand]:
    async with open_stand(servers, database) as stand:
        yield stand
