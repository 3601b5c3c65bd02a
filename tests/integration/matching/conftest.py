from collections.abc import AsyncIterator

import pytest

from tests.integration.order_service.desk import Desk, open_desk


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # psycopg's asynchronous connections need it.


@pytest.fixture
async def desk(database: str) -> AsyncIterator[Desk]:
    async with open_desk(database) as desk:
        yield desk
