"""Whose token it is, how long an answer is kept, and what happens to those whose token is revoked."""

from dataclasses import replace

import anyio
import pytest

from common.core.errors import (
    AddressNotAllowed,
    PermissionMissing,
    SignatureRepeated,
    SignatureWrong,
    Unauthenticated,
    Unavailable,
)
from common.identity.caller import Caller, SigningKey
from common.identity.kept import Kept
from common.identity.networks import read_networks
from common.identity.permissions import ALL, READ, TRADE
from common.identity.signed import Credentials, SignedRequests
from common.identity.signing import HmacKey, websocket_message
from common.identity.window import LocalReplays, Window, unix_ms
from daemons.market_data.identities import RECHECK_S, UNCONFIRMED_S, Identities
from tests.harness.virtual_time import Backend, virtual_time

pytestmark = pytest.mark.anyio

SECRET = HmacKey(b"secret")
OFFICE = read_networks(["203.0.113.0/24"])


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return virtual_time(request.param)


class Source:
    def __init__(self) -> None:
        self.users = {"a": 1, "b": 2, "ak_of_a_user": 1}
        self.permissions = ALL
        self.away = False
        self.asked = 0

    async def authenticate(self, token: str) -> Caller:
        self.asked += 1
        await anyio.sleep(0.01)
        if self.away:
            raise Unavailable
        if token not in self.users:
            raise Unauthenticated
        return Caller(self.users[token], self.permissions)

    async def find_key(self, api_key: str) -> SigningKey:
        return SigningKey(replace(await self.authenticate(api_key), networks=OFFICE), SECRET)

    def identities(self, cache_s: float) -> Identities:
        window = Window(5_000)
        keys = Kept(self.find_key, cache_s)
        return Identities(self, SignedRequests(keys, window, LocalReplays(window)), cache_s)


class Holder:
    def __init__(self, address: str = "203.0.113.7") -> None:
        self.address = address
        self.revoked_s: float | None = None

    def revoke(self, why: str) -> None:
        assert why
        self.revoked_s = anyio.current_time()


async def test_an_answer_is_kept_for_its_time_and_no_longer() -> None:
    source = Source()
    identities = source.identities(cache_s=2.0)
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
    identities = source.identities(cache_s=2.0)
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
    identities = source.identities(cache_s=0.5)
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
    identities = source.identities(cache_s=1.0)
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


def signature(api_key: str = "ak_of_a_user") -> Credentials:
    timestamp = str(unix_ms())
    return Credentials(api_key, timestamp, SECRET.sign(websocket_message(timestamp.encode())).hex())


async def test_a_signature_signs_in_once_from_where_its_key_may_be_used() -> None:
    identities = Source().identities(cache_s=2.0)
    good = signature()
    with pytest.raises(AddressNotAllowed):
        await identities.sign_in_signed(Holder("127.0.0.1"), good)
    assert await identities.sign_in_signed(Holder(), good) == 1
    with pytest.raises(SignatureRepeated):
        await identities.sign_in_signed(Holder(), good)
    with pytest.raises(SignatureWrong):
        await identities.sign_in_signed(Holder(), replace(signature(), signature="0" * 64))
    with pytest.raises(Unauthenticated):
        await identities.sign_in_signed(Holder(), signature("ak_of_nobody"))


async def test_a_revoked_key_loses_its_holders_in_time() -> None:
    source = Source()
    identities = source.identities(cache_s=2.0)
    holder, other = Holder(), Holder()
    async with anyio.create_task_group() as group:
        group.start_soon(identities.run)
        await identities.sign_in_signed(holder, signature())
        await identities.sign_in(other, "a")
        await anyio.sleep(5)
        assert holder.revoked_s is None
        del source.users["ak_of_a_user"]
        revoked_s = anyio.current_time()
        await anyio.sleep(RECHECK_S)
        assert holder.revoked_s is not None
        assert holder.revoked_s - revoked_s <= RECHECK_S
        assert other.revoked_s is None
        group.cancel_scope.cancel()


async def test_private_channels_need_the_permission_to_read() -> None:
    source = Source()
    source.permissions = TRADE
    identities = source.identities(cache_s=2.0)
    for sign_in in (
        identities.sign_in(Holder(), "a"),
        identities.sign_in_signed(Holder(), signature()),
    ):
        with pytest.raises(PermissionMissing):
            await sign_in
    source.permissions = READ
    assert await identities.sign_in(Holder(), "b") == 2
