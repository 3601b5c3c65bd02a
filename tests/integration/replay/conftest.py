from collections.abc import AsyncIterator

import pytest

from daemons.local.servers import Servers
from tests.harness.servers import fresh_database
from tests.integration.order_service.desk import Desk, open_desk
from tests.integration.order_service.traffic import make_history


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # psycopg's asynchronous connections need it.


@pytest.fixture(scope="module")
async def history(servers: Servers, seed: int) -> AsyncIterator[Desk]:
    """A database with a random history; a test that changes it changes it back."""
    with pytest.MonkeyPatch.context() as patched, fresh_database(servers) as url:
        patched.setattr("common.core.engine.DIGEST_EVERY", 25)  # The history is short.
        async with open_desk(url) as desk:
            await make_history(desk, seed)
            yield desk
