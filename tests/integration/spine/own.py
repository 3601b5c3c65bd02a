"""Half an exchange on servers of its own, which a test may kill, freeze and wipe."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from anyio import to_thread
from anyio.from_thread import BlockingPortal, start_blocking_portal

from tests.chaos.servers import OwnServer, Stand, own_servers
from tests.harness.exchange import Exchange, running_exchange
from tests.integration.spine.spine import MATCHINGS, ORDER_SERVICE

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Own:
    """The exchange and its servers, whose processes live in a thread of their own."""

    exchange: Exchange
    stand: Stand
    portal: BlockingPortal

    async def on(self, name: str, act: Callable[[OwnServer], Awaitable[T]]) -> T:
        """Act on a server, e.g. `await own.on("kafka", OwnServer.kill)`."""
        server = self.stand.servers[name]
        return await to_thread.run_sync(lambda: self.portal.call(act, server))


@contextmanager
def own_exchange(folder: Path) -> Iterator[Own]:
    """One order-service and two matchings, behind proxies."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(own_servers(folder / "servers")) as stand,
        running_exchange(stand.proxied, folder, ready=False) as exchange,
    ):
        exchange.start(ORDER_SERVICE, *MATCHINGS)
        yield Own(exchange, stand, portal)
