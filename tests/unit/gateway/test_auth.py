"""Bearer tokens: shared look-ups, and how long an answer is believed."""

import pytest
import trio

from common.core.errors import ExchangeError, Unauthenticated, Unavailable
from gateway.auth import UNKNOWN_CACHE_S, BearerIdentity
from gateway.calls import Call
from tests.harness.virtual_time import Backend, virtual_time

pytestmark = pytest.mark.anyio

CACHE_S, LOOK_UP_S = 2.0, 0.1


@pytest.fixture
def anyio_backend() -> Backend:
    return virtual_time("trio")


class Directory:
    """Knows tokens; a look-up takes LOOK_UP_S."""

    def __init__(self) -> None:
        self.users = {"alice": 1001}
        self.look_ups = 0
        self.error: ExchangeError | None = None

    async def look_up(self, token: str) -> int:
        self.look_ups += 1
        await trio.sleep(LOOK_UP_S)
        if self.error is not None:
            raise self.error
        if token not in self.users:
            raise Unauthenticated()
        return self.users[token]


def call(authorization: str | None) -> Call:
    headers = [] if authorization is None else [(b"authorization", authorization.encode())]
    return Call("GET", "/", b"/", b"", headers, "r")


async def test_a_token_is_looked_up_once_for_many_and_kept_for_its_time() -> None:
    directory = Directory()
    identify = BearerIdentity(directory.look_up, CACHE_S)
    users: list[int] = []

    async def ask() -> None:
        users.append(await identify(call("Bearer alice")))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask)
    await ask()
    assert (users, directory.look_ups) == ([1001] * 11, 1)
    await trio.sleep(CACHE_S)
    await ask()
    assert directory.look_ups == 2


async def test_a_revoked_token_is_believed_no_longer_than_the_cache() -> None:
    directory = Directory()
    identify = BearerIdentity(directory.look_up, CACHE_S)
    await identify(call("Bearer alice"))
    del directory.users["alice"]
    await trio.sleep(CACHE_S)
    with pytest.raises(Unauthenticated):
        await identify(call("Bearer alice"))


async def test_an_unknown_token_is_asked_about_again_soon() -> None:
    directory = Directory()
    identify = BearerIdentity(directory.look_up, CACHE_S)
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await identify(call("Bearer carol"))
    assert directory.look_ups == 1
    directory.users["carol"] = 1003
    await trio.sleep(UNKNOWN_CACHE_S)
    assert await identify(call("Bearer carol")) == 1003


async def test_a_failed_look_up_is_not_kept() -> None:
    directory = Directory()
    identify = BearerIdentity(directory.look_up, CACHE_S)
    directory.error = Unavailable()
    with pytest.raises(Unavailable):
        await identify(call("Bearer alice"))
    directory.error = None
    assert await identify(call("Bearer alice")) == 1001


async def test_when_the_task_that_asks_is_cancelled_another_one_asks() -> None:
    directory = Directory()
    identify = BearerIdentity(directory.look_up, CACHE_S)
    users: list[int] = []

    async def ask() -> None:
        users.append(await identify(call("Bearer alice")))

    async def give_up() -> None:
        with trio.move_on_after(LOOK_UP_S / 2):
            await ask()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(give_up)
        await trio.sleep(LOOK_UP_S / 4)
        nursery.start_soon(ask)
    assert (users, directory.look_ups) == ([1001], 2)


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic YTpi", "Bearer a b", "alice", "Bearer " + "x" * 300]
)
async def test_what_is_no_bearer_token_is_not_looked_up(header: str | None) -> None:
    directory = Directory()
    with pytest.raises(Unauthenticated):
        await BearerIdentity(directory.look_up, CACHE_S)(call(header))
    assert directory.look_ups == 0
