"""A commit whose answer was lost is looked up and never done twice; one that was lost is done again (I2)."""

import random

import anyio
import pytest

from common.core import messages as m
from daemons.order_service.requests import Accepted, Answer, CancelAccepted, CancelOrder
from tests.integration.order_service.committing import (
    committing,
    terminate_now_and_then,
    until_blocked,
)
from tests.integration.order_service.desk import UNIT, USD, Desk, limit
from tests.integration.order_service.proxy import Cut, proxied

pytestmark = pytest.mark.anyio

PRICE, LOTS = 5_000_000, 1_000
COST = PRICE * LOTS * 10


async def check_placed_once(desk: Desk, user: int, answers: list[Answer]) -> None:
    """Each answer is an order of the database, at its sequence, and nothing else was placed or held."""
    accepted = [answer for answer in answers if isinstance(answer, Accepted)]
    assert len(accepted) == len(answers), answers
    rows = await desk.rows("SELECT order_id, sequence, created_us FROM orders ORDER BY sequence")
    assert rows == [(answer.order_id, answer.sequence, answer.created_us) for answer in accepted]
    held = len(answers) * COST
    assert await desk.account(user, USD) == (1_000_000 * UNIT - held, held)
    await desk.run(0)
    await desk.check_money()


@pytest.mark.parametrize(
    "cuts",
    [
        [Cut.AFTER],
        [Cut.BEFORE],
        [Cut.AFTER, Cut.AFTER],  # The second one hits the look-up.
        [Cut.BEFORE, Cut.BEFORE],
        [Cut.BEFORE, Cut.AFTER],
        [Cut.BEFORE, Cut.AFTER, Cut.AFTER],
    ],
    ids=lambda cuts: "-".join(cut.name for cut in cuts),
)
@pytest.mark.parametrize("orders", [1, 30], ids=["inserted", "copied"])
async def test_a_session_that_ends_around_its_commit(desk: Desk, cuts: list[Cut], orders: int) -> None:
    user = await desk.user()
    async with proxied(desk.url) as proxy, committing(desk, url=proxy.url) as committer:
        proxy.cuts.extend(cuts)
        answers = await committer.submit([limit(user, m.Side.BUY, PRICE, LOTS)] * orders)
        assert not proxy.cuts
        assert not any(answer.repeated for answer in answers if isinstance(answer, Accepted))
    await check_placed_once(desk, user, answers)


async def test_the_look_up_waits_for_a_commit_that_is_still_on_its_way(desk: Desk) -> None:
    user = await desk.user()
    answers: list[Answer] = []
    async with proxied(desk.url) as proxy, committing(desk, url=proxy.url) as committer:

        async def submit() -> None:
            answers.extend(await committer.submit([limit(user, m.Side.BUY, PRICE, LOTS)]))

        proxy.cuts.append(Cut.LATE)
        async with anyio.create_task_group() as group:
            group.start_soon(submit)
            await until_blocked(desk)  # The look-up waits for the users' locks of the lost transaction.
            proxy.release.set()
    await check_placed_once(desk, user, answers)


async def test_a_cancel_in_doubt_is_sent_again(desk: Desk) -> None:
    user = await desk.user()
    order = await desk.place(limit(user, m.Side.BUY, PRICE, LOTS))
    await desk.run(0)
    async with proxied(desk.url) as proxy, committing(desk, url=proxy.url) as committer:
        proxy.cuts.append(Cut.AFTER)
        [answer] = await committer.submit([CancelOrder(user, order.order_id)])
    assert isinstance(answer, CancelAccepted)
    await desk.run(0)
    assert await desk.account(user, USD) == (1_000_000 * UNIT, 0)
    await desk.check_money()


async def test_sessions_that_are_ended_at_random_place_every_order_once(desk: Desk, seed: int) -> None:
    user = await desk.user()
    draw = random.Random(seed)
    answers: list[Answer] = []
    async with committing(desk) as committer, anyio.create_task_group() as group:
        group.start_soon(terminate_now_and_then, desk, draw, "order-service tx1")
        for _ in range(30):
            answers += await committer.submit([limit(user, m.Side.BUY, PRICE, LOTS)] * draw.choice([1, 20]))
        group.cancel_scope.cancel()
    await check_placed_once(desk, user, answers)
