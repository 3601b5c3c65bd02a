"""kill -9 with live orders in the book: priorities and fills go on exactly where they were."""

from collections.abc import Sequence
from dataclasses import dataclass

import anyio
import pytest

from exchange.v1 import types_pb2 as ty
from tests.integration.spine.spine import BUY, MATCHINGS, ORDER_SERVICE, SELL, Spine, order

pytestmark = pytest.mark.anyio

PRICE, LOTS = 5_000_000, 1_000


@dataclass
class Book:
    """Three makers at one price, in this order; the first is filled by 200 of 500 lots already."""

    makers: list[tuple[int, int]]  # user, order
    taker: int

    async def filled(self, spine: Spine) -> list[tuple[int, int]]:
        """(filled lots, status) of each maker."""
        states = [await spine.order(*maker) for maker in self.makers]
        return [(state.filled_lots, state.status) for state in states]


async def fill_book(spine: Spine) -> Book:
    users = [await spine.join() for _ in range(4)]
    makers = []
    for user in users[:3]:
        [accepted] = await spine.place(user, order(BUY, PRICE, 500))
        makers.append((user, accepted.order_id))
    book = Book(makers, users[3])
    await spine.place(book.taker, order(SELL, PRICE, 200))
    await spine.settled()
    assert [lots for lots, _ in await book.filled(spine)] == [200, 0, 0]
    return book


async def check_priorities(spine: Spine, book: Book) -> None:
    """A sale of 400 takes what is left of the first, then 100 of the second; then the rest in order."""
    await spine.place(book.taker, order(SELL, PRICE, 400))
    await spine.settled()
    filled, partially, is_open = (
        ty.ORDER_STATUS_FILLED,
        ty.ORDER_STATUS_PARTIALLY_FILLED,
        ty.ORDER_STATUS_OPEN,
    )
    assert await book.filled(spine) == [(500, filled), (100, partially), (0, is_open)]
    await spine.place(book.taker, order(SELL, PRICE - 10, 900))
    await spine.settled()
    assert await book.filled(spine) == [(500, filled)] * 3
    prices = await spine.rows("SELECT DISTINCT price_ticks FROM trades WHERE taker_user_id = %s", book.taker)
    assert prices == [(PRICE,)]
    await spine.check()


async def until_led_by_another(spine: Spine, service: str, holder: str, token: int) -> None:
    async def led() -> bool:
        now, higher = await spine.leader(service, 0)
        return now != holder and higher > token

    await spine.until(led)


async def test_the_standby_leads_when_the_leader_is_killed(spine: Spine) -> None:
    book = await fill_book(spine)
    holder, token = await spine.leader("matching", 0)
    spine.exchange.kill(holder)
    await check_priorities(spine, book)
    await until_led_by_another(spine, "matching", holder, token)
    spine.exchange.start(holder)


async def test_orders_that_come_while_nobody_matches_wait(spine: Spine) -> None:
    book = await fill_book(spine)
    for name in MATCHINGS:
        spine.exchange.kill(name)
    [waiting] = await spine.place(book.taker, order(SELL, PRICE + 10, 100))
    await spine.cancel(book.taker, waiting.order_id)
    assert (await spine.order(book.taker, waiting.order_id)).status == ty.ORDER_STATUS_ACCEPTED
    spine.exchange.start(*MATCHINGS)
    await check_priorities(spine, book)
    assert (await spine.order(book.taker, waiting.order_id)).status == ty.ORDER_STATUS_CANCELED


@pytest.mark.parametrize("hint", [-1, 0, 1 << 40])
async def test_the_stored_offset_is_only_a_hint(spine: Spine, hint: int) -> None:
    book = await fill_book(spine)
    for name in MATCHINGS:
        spine.exchange.kill(name)
    await spine.rows("UPDATE watermarks SET orders_offset = %s WHERE partition = 0 RETURNING 1", hint)
    spine.exchange.start(*MATCHINGS)
    await check_priorities(spine, book)


async def test_order_service_is_killed_with_live_orders(spine: Spine) -> None:
    book = await fill_book(spine)
    spine.exchange.kill(ORDER_SERVICE)
    spine.exchange.start(ORDER_SERVICE)
    await check_priorities(spine, book)


async def test_everything_is_killed_at_once(spine: Spine) -> None:
    book = await fill_book(spine)
    await spine.place(book.taker, order(SELL, PRICE + 20, 100))  # Accepted, and perhaps not yet matched.
    for name in (ORDER_SERVICE, *MATCHINGS):
        spine.exchange.kill(name)
    spine.exchange.start(ORDER_SERVICE, *MATCHINGS)
    await check_priorities(spine, book)
    await spine.cancel_all(book.taker)


async def _place_all(spine: Spine, user: int, names: Sequence[str], ids: dict[str, int]) -> None:
    for name in names:
        [accepted] = await spine.place(user, order(BUY, PRICE - 1_000, LOTS, client=name))
        ids[name] = accepted.order_id


async def test_who_asks_again_after_a_kill_has_placed_once(spine: Spine) -> None:
    users = [await spine.join() for _ in range(3)]
    names = [f"n{number}" for number in range(30)]
    ids: list[dict[str, int]] = [{} for _ in users]
    async with anyio.create_task_group() as group:
        for user, own in zip(users, ids, strict=True):
            group.start_soon(_place_all, spine, user, names, own)

        async def under_way() -> bool:
            return min(map(len, ids)) > 3

        await spine.until(under_way)
        spine.exchange.kill(ORDER_SERVICE)
        spine.exchange.start(ORDER_SERVICE)
    for user, own in zip(users, ids, strict=True):
        rows = await spine.rows("SELECT client_order_id, order_id FROM orders WHERE user_id = %s", user)
        assert sorted(rows) == sorted(own.items())
    await spine.cancel_all(*users)
