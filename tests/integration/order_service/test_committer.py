"""Natural batching on a real database: what shares a transaction, what is refused, what a drain waits for."""

from collections.abc import Sequence

import anyio
import anyio.lowlevel
import pytest

from common.core import errors
from common.core import messages as m
from daemons.order_service import committer as module
from daemons.order_service.committer import Committer
from daemons.order_service.requests import Accepted, Answer, NewOrder
from tests.integration.order_service.committing import committing, locked, until, until_blocked
from tests.integration.order_service.desk import UNIT, USD, Desk, limit

pytestmark = pytest.mark.anyio

PRICE, LOTS = 5_000_000, 1_000
COST = PRICE * LOTS * 10
NOBODY = 1 << 70  # PostgreSQL refuses the whole statement: no bigint.


def buy(user: int, lots: int = LOTS, client: str = "") -> NewOrder:
    return limit(user, m.Side.BUY, PRICE, lots, client=client)


class Submits:
    """Submits that run beside the test; `answers` fill up by number."""

    def __init__(self, committer: Committer, group: anyio.abc.TaskGroup) -> None:
        self.answers: dict[int, Sequence[Answer]] = {}
        self._committer = committer
        self._group = group
        self._started = 0

    async def start(self, *requests: NewOrder) -> None:
        """One call; it stands in the queue when this returns."""
        self._group.start_soon(self._submit, self._started, requests)
        self._started += 1
        await anyio.lowlevel.checkpoint()

    async def _submit(self, number: int, requests: Sequence[NewOrder]) -> None:
        self.answers[number] = await self._committer.submit(requests)


async def test_what_arrives_while_a_transaction_runs_shares_the_next(desk: Desk) -> None:
    user = await desk.user()
    before = await desk.batches(0)
    async with committing(desk) as committer, anyio.create_task_group() as group:
        submits = Submits(committer, group)
        async with locked(desk.url, user):
            await submits.start(buy(user))
            await until_blocked(desk)
            for _ in range(49):
                await submits.start(buy(user))
    batches = (await desk.batches(0))[len(before) :]
    assert [len(batch.commands) for batch in batches] == [1, 49]
    sequences = [answer.sequence for [answer] in submits.answers.values() if isinstance(answer, Accepted)]
    assert sorted(sequences) == list(range(batches[0].first_sequence, batches[0].first_sequence + 50))
    await desk.run(0)
    await desk.check_money()


async def test_a_batch_has_a_bound_and_a_unit_stays_whole(desk: Desk) -> None:
    user = await desk.user()
    before = await desk.batches(0)
    async with committing(desk, batch_requests=5) as committer, anyio.create_task_group() as group:
        submits = Submits(committer, group)
        async with locked(desk.url, user):
            await submits.start(buy(user))
            await until_blocked(desk)
            for size in (2, 2, 2, 7):  # The last is larger than a batch, and goes alone.
                await submits.start(*[buy(user)] * size)
    sizes = [len(batch.commands) for batch in (await desk.batches(0))[len(before) :]]
    assert sizes == [1, 4, 2, 7]


async def test_a_full_queue_answers_busy_and_changes_nothing(desk: Desk) -> None:
    user = await desk.user()
    async with committing(desk, queue_requests=5) as committer, anyio.create_task_group() as group:
        submits = Submits(committer, group)
        async with locked(desk.url, user):
            await submits.start(buy(user))
            await until_blocked(desk)
            await submits.start(*[buy(user)] * 4)
            with pytest.raises(errors.Busy):
                await committer.submit([buy(user, client="late")] * 2)
            await submits.start(buy(user))  # One more fits.
            with pytest.raises(errors.Busy):
                await committer.submit([buy(user, client="late")])
    assert await desk.rows("SELECT count(*) FROM orders") == [(6,)]
    assert await desk.account(user, USD) == (1_000_000 * UNIT - 6 * COST, 6 * COST)


async def test_a_drain_answers_what_was_accepted_and_refuses_the_rest(desk: Desk) -> None:
    user = await desk.user()
    async with anyio.create_task_group() as group:
        async with committing(desk) as committer, locked(desk.url, user):
            submits = Submits(committer, group)
            await submits.start(buy(user))
            await until_blocked(desk)
            await submits.start(buy(user), buy(user))
            committer.finish()
            with pytest.raises(errors.Unavailable):
                await committer.submit([buy(user)])
        assert [type(answer) for one in submits.answers.values() for answer in one] == [Accepted] * 3
    assert await desk.rows("SELECT count(*) FROM orders") == [(3,)]


async def test_a_poisoned_request_is_refused_alone(desk: Desk) -> None:
    user = await desk.user()
    async with committing(desk) as committer, anyio.create_task_group() as group:
        submits = Submits(committer, group)
        async with locked(desk.url, user):
            await submits.start(buy(user))
            await until_blocked(desk)
            await submits.start(buy(user))
            await submits.start(buy(NOBODY))
            # As the gateway sends them: many users in one call.
            await submits.start(buy(user), buy(user, client="a"), buy(NOBODY), buy(user, client="a"))
            await submits.start(buy(user))
    kinds = {number: [type(answer) for answer in one] for number, one in submits.answers.items()}
    assert kinds == {
        0: [Accepted],
        1: [Accepted],
        2: [errors.ExchangeError],
        3: [Accepted, Accepted, errors.ExchangeError, Accepted],
        4: [Accepted],
    }
    _, first, _, twin = submits.answers[3]
    assert isinstance(first, Accepted)
    assert isinstance(twin, Accepted)
    assert (twin.order_id, twin.repeated) == (first.order_id, True)
    assert await desk.rows("SELECT count(*) FROM orders") == [(5,)]
    await desk.run(0)
    await desk.check_money()


@pytest.mark.parametrize("where", ["user", "shard"])
async def test_who_waits_too_long_hears_unavailable_and_may_ask_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    user = await desk.user()
    monkeypatch.setattr(module, "GIVE_UP_S", 0.2)
    async with committing(desk) as committer:
        async with locked(desk.url, user if where == "user" else 0):
            [answer] = await committer.submit([buy(user, client="a")])
        assert isinstance(answer, errors.Unavailable)
        assert await desk.account(user, USD) == (1_000_000 * UNIT, 0)  # No hold without its order.
        monkeypatch.setattr(module, "GIVE_UP_S", 10.0)
        [again] = await committer.submit([buy(user, client="a")])
        assert isinstance(again, Accepted)
    assert await desk.rows("SELECT count(*) FROM orders") == [(1,)]


async def test_a_name_that_stands_in_a_market_unknown_here_is_a_duplicate(desk: Desk) -> None:
    """Another replica knows a new market a moment sooner, and the user repeats the name here."""
    user = await desk.user()
    await desk.place(limit(user, m.Side.SELL, PRICE, LOTS, symbol="ETH-USD", client="a"))
    desk.markets.fill([desk.markets.named("BTC-USD")])
    async with committing(desk) as committer:
        [answer] = await committer.submit([buy(user, client="a")])
    assert isinstance(answer, errors.DuplicateClientOrderId)


async def test_an_idle_exchange_waits_for_nobody(desk: Desk) -> None:
    """One order is one transaction, at once: no timer collects others."""
    user = await desk.user()
    before = len(await desk.batches(0))
    async with committing(desk) as committer:
        for _ in range(3):
            await committer.submit([buy(user)])

    async def all_there() -> bool:
        return len(await desk.batches(0)) == before + 3

    await until(all_there)


async def test_a_batch_that_is_refused_as_a_whole_is_no_harm_to_the_next(desk: Desk) -> None:
    poor, user = await desk.user(usd=0), await desk.user()
    async with committing(desk) as committer:
        for _ in range(3):
            [refused] = await committer.submit([buy(poor)])
            assert isinstance(refused, errors.InsufficientFunds)
            [accepted] = await committer.submit([buy(user)])
            assert isinstance(accepted, Accepted)
