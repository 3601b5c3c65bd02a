"""What the application receives of its request."""

from typing import Any

import pytest
import trio
import trio.testing

from gateway.inbox import MOST_PARTS, Inbox
from tests.harness.virtual_time import Backend, virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Backend:
    return virtual_time("trio")


def part(body: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


END = part(b"", more=False)
GONE = {"type": "http.disconnect"}


async def filled(*messages: dict[str, Any]) -> Inbox:
    inbox = Inbox()
    for message in messages:
        await inbox.put(message)
    return inbox


async def test_a_body_that_is_all_here_is_taken_at_once_and_only_once() -> None:
    inbox = await filled(part(b"a"), part(b"b"), END, GONE)
    assert inbox.take_body() == b"ab"
    assert inbox.take_body() is None
    assert await inbox() == GONE


async def test_an_empty_body_is_a_body() -> None:
    assert (await filled(END)).take_body() == b""


@pytest.mark.parametrize("messages", [(), (part(b"a"),), (part(b"a"), GONE), (GONE,)])
async def test_a_body_that_is_not_all_here_stays(messages: tuple[dict[str, Any], ...]) -> None:
    inbox = await filled(*messages)
    assert inbox.take_body() is None
    assert [await inbox() for _ in messages] == list(messages)


async def test_parts_wait_for_room_and_taking_the_body_makes_it() -> None:
    inbox = await filled(*[part(b"x")] * (MOST_PARTS - 1), END)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbox.put, part(b"later"))
        await trio.testing.wait_all_tasks_blocked()
        assert inbox.take_body() == b"x" * (MOST_PARTS - 1)
    assert await inbox() == part(b"later")


async def test_after_the_end_nothing_waits() -> None:
    inbox = await filled(*[part(b"x")] * MOST_PARTS)
    inbox.close()
    await inbox.put(part(b"lost"))
    await inbox.put(GONE)
