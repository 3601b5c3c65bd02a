"""Whose token it is, how long an answer is kept, and what happens to those whose token is revoked."""

import anyio
import pytest

from common.core.errors import Unauthenticated, Unavailable
from daemons.market_data.identities import RECHECK_S, UNCONFIRMED_S, Identities
from tests.harness.virtual_time import Backend, virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return virtual_time(request.param)


class Source:
    def __init__(self) -> None:
        self.users = {"a": 1, "b": 2}
        self.away = False
        self.asked = 0

    async def authenticate(self, token: str) -> int:
        self.asked += 1
        await anyio.sleep(0.01)
        if self.away:
            raise Unavailable
        if token not in self.users:
            raise Unauthenticated
        return self.users[token]


class Holder:
    def __init__(self) -> None:
        self.revoked_s: float | None = None

    def revoke(self, why: str) -> None:
        assert why
        self.revoked_s = anyio.current_time()


async def test_an_answer_is_kept_for_its_time_and_no_longer() -> None:
    source = Source()
    identities = Identities(source, cache_s=2.0)
    holder = Holder()
    assert [await identities.sign_in(holder, "a") for _ in range(3)] == [1, 1, 1]
    assert source.asked == 1
    await anyio.sleep(2.5)
    await identities.sign_in(holder, "a")
    assert source.asked == 2
    with pytest.raises(Unauthenticated):
        await identities.sign_in(holder, "nobody's")


async def test_a_revoked_token_loses_all_its_holders_in_time_and_no_others() -> None:
    source = Source()
    identities = Identities(source, cache_s=2.0)
    first, second, other = Holder(), Holder(), Holder()
    async with anyio.create_task_group() as group:
        group.start_soon(identities.run)
        for holder, token in ((first, "a"), (second, "a"), (other, "b")):
            await identities.sign_in(holder, token)
        await anyio.sleep(10)
        assert first.revoked_s is None
        del source.users["a"]
        revoked_s = anyio.current_time()
        await anyio.sleep(RECHECK_S)
        for holder in (first, second):
            assert holder.revoked_s is not None
            assert holder.revoked_s - revoked_s <= RECHECK_S
        assert other.revoked_s is None
        with pytest.raises(Unauthenticated):
            await identities.sign_in(first, "a")
        group.cancel_scope.cancel()


async def test_while_nobody_answers_those_who_are_in_stay_for_a_while() -> None:
    source = Source()
    identities = Identities(source, cache_s=0.5)
    holder = Holder()
    async with anyio.create_task_group() as group:
        group.start_soon(identities.run)
        await identities.sign_in(holder, "a")
        source.away = True
        away_s = anyio.current_time()
        await anyio.sleep(1)
        with pytest.raises(Unavailable):
            await identities.sign_in(Holder(), "a")
        await anyio.sleep(UNCONFIRMED_S - 5)
        assert holder.revoked_s is None
        await anyio.sleep(10)
        assert holder.revoked_s is not None
        assert holder.revoked_s - away_s >= UNCONFIRMED_S - 1
        group.cancel_scope.cancel()


async def test_nobody_is_asked_about_those_who_left() -> None:
    source = Source()
    identities = Identities(source, cache_s=1.0)
    holder = Holder()
    async with anyio.create_task_group() as group:
        group.start_soon(identities.run)
        await identities.sign_in(holder, "a")
        await identities.sign_in(holder, "b")
        identities.sign_out(holder)
        identities.sign_out(holder)
        asked = source.asked
        await anyio.sleep(20)
        assert source.asked == asked
        group.cancel_scope.cancel()
