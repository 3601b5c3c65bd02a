"""Idempotency keys on a real database: one claimant, one answer, 24 hours."""

from collections.abc import AsyncIterator

import anyio
import pytest

from common import db
from common.core import messages as m
from common.core.errors import Malformed, OrderNotLive
from daemons.order_service import idempotency, upkeep
from daemons.order_service.idempotency import Keys
from daemons.order_service.requests import CancelAllOrders, Canceling, CancelOrder
from exchange.v1 import internal_pb2 as internal
from tests.integration.order_service.desk import Desk, limit

pytestmark = pytest.mark.anyio

USER, OTHER = 1001, 1002


@pytest.fixture
async def keys(desk: Desk) -> AsyncIterator[Keys]:
    async with db.pool(desk.url, name="order-service keys", max_size=4) as pool:
        yield Keys(pool)


def claim(claimant: int, *, key: str = "k", user: int = USER, body: bytes = b"a") -> internal.KeyClaim:
    return internal.KeyClaim(user_id=user, key=key, fingerprint=body * 32, claimant=claimant)


def settlement(claimant: int, answer: bytes = b"done", *, key: str = "k") -> internal.KeySettlement:
    return internal.KeySettlement(user_id=USER, key=key, claimant=claimant, answer=answer)


async def age(desk: Desk, column: str, interval: str) -> None:
    """Move a time of every key into the past."""
    statement = f"UPDATE idempotency_keys SET {column} = {column} - interval '{interval}'"
    await desk.connection.execute(statement.encode())


async def test_one_claims_and_all_hear_the_answer(desk: Desk, keys: Keys) -> None:
    [mine, other, theirs] = await keys.claim([claim(1), claim(2), claim(3, user=OTHER)])
    assert (mine.claimed, other.claimed, theirs.claimed) == (True, False, True)
    [again] = await keys.claim([claim(1)])  # Its answer was lost on the way.
    assert (again.claimed, again.created_us) == (True, mine.created_us)
    [late] = await keys.settle([settlement(2)])
    assert (late.claimed, late.answer) == (False, b"")
    for _ in range(2):
        [settled] = await keys.settle([settlement(1)])
        assert (settled.claimed, settled.answer) == (False, b"done")
    [changed] = await keys.settle([settlement(1, b"another")])
    [repeated] = await keys.claim([claim(4, body=b"b")])
    assert changed.answer == repeated.answer == b"done"
    assert repeated.fingerprint == b"a" * 32
    [free] = await keys.claim([claim(4, user=OTHER, key="k2")])
    assert free.claimed


async def test_who_is_silent_is_taken_over_by_the_same_request_alone(desk: Desk, keys: Keys) -> None:
    [first] = await keys.claim([claim(1)])
    await age(desk, "claimed_at", f"{idempotency.TAKE_OVER_S + 1} s")
    [wrong] = await keys.claim([claim(2, body=b"b")])
    assert (wrong.claimed, wrong.fingerprint) == (False, b"a" * 32)
    [taken] = await keys.claim([claim(3)])
    assert (taken.claimed, taken.created_us) == (True, first.created_us)
    [late] = await keys.settle([settlement(1, b"late")])
    assert (late.claimed, late.answer) == (False, b"")
    [settled] = await keys.settle([settlement(3, b"first")])
    [late] = await keys.settle([settlement(1, b"late")])
    assert settled.answer == late.answer == b"first"


async def test_what_is_given_back_is_free_for_the_same_request_alone(keys: Keys) -> None:
    await keys.claim([claim(1)])
    [given] = await keys.settle([settlement(1, b"")])
    assert (given.claimed, given.answer) == (False, b"")
    [wrong] = await keys.claim([claim(2, body=b"b")])
    [again] = await keys.claim([claim(3)])
    assert (wrong.claimed, again.claimed) == (False, True)


async def test_after_24_hours_a_key_begins_anew(desk: Desk, keys: Keys) -> None:
    [first] = await keys.claim([claim(1)])
    await keys.settle([settlement(1)])
    await age(desk, "created_at", "23 hours 59 minutes")
    [old] = await keys.claim([claim(2, body=b"b")])
    assert (old.claimed, old.answer) == (False, b"done")
    await age(desk, "created_at", "1 minute")
    [new] = await keys.claim([claim(3, body=b"b")])
    assert (new.claimed, new.answer, new.fingerprint) == (True, b"", b"b" * 32)
    assert new.created_us > first.created_us


async def test_keys_that_have_ended_are_removed(
    desk: Desk, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "FORGET_KEYS", 2)
    monkeypatch.setattr(upkeep, "FORGET_EVERY_S", 0.01)
    await keys.claim([claim(1, key=f"k{number}") for number in range(5)])
    await age(desk, "created_at", "24 hours")
    await keys.claim([claim(1, key="young")])
    async with anyio.create_task_group() as group:
        group.start_soon(upkeep.forget_keys, keys._pool)
        with anyio.fail_after(10):
            while await desk.rows("SELECT count(*) FROM idempotency_keys") != [(1,)]:
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    assert await desk.rows("SELECT count(*) FROM idempotency_keys WHERE key = 'young'") == [(1,)]


async def test_many_at_once_in_any_order_have_one_claimant_each(keys: Keys) -> None:
    names = [f"k{number}" for number in range(20)]
    claimed: list[str] = []

    async def work(claimant: int) -> None:
        order = names if claimant % 2 else names[::-1]
        states = await keys.claim([claim(claimant, key=name) for name in order])
        mine = [name for name, state in zip(order, states, strict=True) if state.claimed]
        claimed.extend(mine)
        if mine:
            await keys.settle([settlement(claimant, key=name) for name in mine])

    async with anyio.create_task_group() as group:
        for claimant in range(1, 13):
            group.start_soon(work, claimant)
    assert sorted(claimed) == sorted(names)


async def test_a_cancel_under_a_key_is_done_once(desk: Desk, keys: Keys) -> None:
    user = await desk.user()
    key = '"\\k'
    orders = [await desk.place(limit(user, m.Side.BUY, 5_000_000, 1_000)) for _ in range(3)]
    await keys.claim([claim(1, user=user, key=key), claim(1, user=user, key="all")])
    [first] = await desk.submit(CancelOrder(user, orders[0].order_id, key))
    await desk.run(0)
    [refused] = await desk.submit(CancelOrder(user, orders[0].order_id))
    assert isinstance(refused, OrderNotLive)
    assert await desk.submit(CancelOrder(user, orders[0].order_id, key)) == [first]
    [swept] = await desk.submit(CancelAllOrders(user, "", "all"))
    assert swept == Canceling(2)
    await desk.run(0)
    later = await desk.place(limit(user, m.Side.BUY, 5_000_000, 1_000))
    again = CancelAllOrders(user, "", "all"), CancelOrder(user, orders[0].order_id, key)
    assert await desk.submit(*again) == [swept, first]
    await desk.run(0)
    assert await desk.rows("SELECT order_id FROM orders WHERE live") == [(later.order_id,)]
    await age(desk, "created_at", "24 hours")
    await keys.claim([claim(2, user=user, key="all")])
    assert await desk.submit(CancelAllOrders(user, "", "all")) == [Canceling(1)]


async def test_what_no_gateway_sends_is_refused(keys: Keys) -> None:
    for wrong in (claim(0), claim(1, user=0), claim(1, key=""), claim(1, key="a b"), claim(1, key="k" * 256)):
        with pytest.raises(Malformed):
            await keys.claim([wrong])
    with pytest.raises(Malformed):
        await keys.claim([internal.KeyClaim(user_id=1, key="k", claimant=1, fingerprint=b"short")])
    with pytest.raises(Malformed):
        await keys.settle([settlement(1)] * (idempotency.MOST + 1))
