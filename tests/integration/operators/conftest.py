from collections.abc import AsyncIterator

import pytest

from daemons.local.servers import Servers
from tests.harness.servers import fresh_database
from tests.integration.order_service.desk import Desk, open_desk


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # psycopg's asynchronous connections need it.


@pytest.fixture(scope="module")
async def desk(servers: Servers) -> AsyncIterator[Desk]:
    """One for the module: each test brings its own users."""
    with fresh_database(servers) as url:
        async with open_desk(url) as desk:
            yield desk
