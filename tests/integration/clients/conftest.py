"""One exchange for all tests of the client."""

from collections.abc import Iterator

import pytest

from daemons.local.servers import Servers
from tests.harness.exchange import Exchange, running_exchange


@pytest.fixture(scope="package")
def exchange(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    with running_exchange(servers, tmp_path_factory.mktemp("exchange")) as running:
        yield running


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)
