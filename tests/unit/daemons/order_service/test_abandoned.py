"""Who has stopped waiting is not placed: it may have been answered otherwise by another instance.

And nobody waits in the queue for longer than a transaction may take.
"""

import anyio
import pytest

from common.core.errors import Unavailable
from daemons.order_service.committer import GIVE_UP_S, Committer
from daemons.order_service.markets import Markets
from daemons.order_service.relay import Relays
from daemons.order_service.requests import CancelAllOrders
from tests.harness.virtual_time import Backend, virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return virtual_time(request.param)


async def test_requests_whose_caller_has_gone_go_into_no_transaction() -> None:
    committer = Committer("", Markets(), Relays(1), batch_requests=10, queue_requests=3)
    gone, there = CancelAllOrders(1, ""), CancelAllOrders(2, "")
    async with anyio.create_task_group() as group:
        with anyio.move_on_after(1):
            await committer.submit([gone, gone])
        group.start_soon(committer.submit, [there])
        await anyio.wait_all_tasks_blocked()
        [unit] = await committer._next_batch()
        assert unit.requests == [there]
        assert committer._queued == 0
        group.cancel_scope.cancel()


async def test_requests_that_have_waited_too_long_are_refused_and_go_into_no_transaction() -> None:
    committer = Committer("", Markets(), Relays(1), batch_requests=10, queue_requests=5)
    late, there = CancelAllOrders(1, ""), CancelAllOrders(2, "")
    first = committer.enqueue([late, late])
    await anyio.sleep(GIVE_UP_S / 2)
    committer.enqueue([there])
    await anyio.sleep(GIVE_UP_S / 2 + 1)
    [unit] = await committer._next_batch()
    assert unit.requests == [there]
    assert [type(answer) for answer in await first.wait()] == [Unavailable, Unavailable]
    assert committer._queued == 0
