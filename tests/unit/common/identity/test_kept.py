"""Answers about tokens and keys: shared look-ups, and how long they are believed."""

from dataclasses import dataclass

import anyio
import pytest

from common.core.errors import ExchangeError, Unauthenticated, Unavailable
from common.identity import kept
from common.identity.kept import UNKNOWN_CACHE_S, Kept
from tests.harness.virtual_time import Backend, virtual_time

pytestmark = pytest.mark.anyio

CACHE_S, LOOK_UP_S = 2.0, 0.1
UNIX_S = 1_700_000_000.0


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return virtual_time(request.param)


@dataclass(frozen=True)
class Answer:
    user_id: int
    expires_us: int = 0


class Directory:
    """Knows tokens; a look-up takes LOOK_UP_S."""

    def __init__(self) -> None:
        self.users = {"alice": Answer(1001)}
        self.look_ups = 0
        self.error: ExchangeError | None = None

    def kept(self) -> Kept[Answer]:
        began_s = anyio.current_time()
        return Kept(
            self.look_up, CACHE_S, anyio.current_time, lambda: UNIX_S + anyio.current_time() - began_s
        )

    async def look_up(self, token: str) -> Answer:
        self.look_ups += 1
        await anyio.sleep(LOOK_UP_S)
        if self.error is not None:
            raise self.error
        if token not in self.users:
            raise Unauthenticated
        return self.users[token]


async def find(tokens: Kept[Answer], token: str) -> int:
    return (await tokens.find(token.encode(), token)).user_id


async def test_a_token_is_looked_up_once_for_many_and_kept_for_its_time() -> None:
    directory = Directory()
    tokens = directory.kept()
    users: list[int] = []

    async def ask() -> None:
        users.append(await find(tokens, "alice"))

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(ask)
    await ask()
    assert (users, directory.look_ups) == ([1001] * 11, 1)
    await anyio.sleep(CACHE_S)
    await ask()
    assert directory.look_ups == 2


async def test_a_revoked_token_is_believed_no_longer_than_the_cache() -> None:
    directory = Directory()
    tokens = directory.kept()
    await find(tokens, "alice")
    del directory.users["alice"]
    await anyio.sleep(CACHE_S - LOOK_UP_S)  # Counted from before the look-up.
    with pytest.raises(Unauthenticated):
        await find(tokens, "alice")


async def test_what_ends_sooner_than_the_cache_is_believed_until_then() -> None:
    directory = Directory()
    directory.users["alice"] = Answer(1001, int((UNIX_S + 1.0) * 1e6))
    tokens = directory.kept()
    await find(tokens, "alice")
    await anyio.sleep(0.85)
    await find(tokens, "alice")
    assert directory.look_ups == 1
    await anyio.sleep(0.15)
    await find(tokens, "alice")  # It is order-service that says when it has ended.
    assert directory.look_ups == 2


async def test_an_unknown_token_is_asked_about_again_soon() -> None:
    directory = Directory()
    tokens = directory.kept()
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await find(tokens, "carol")
    assert directory.look_ups == 1
    directory.users["carol"] = Answer(1003)
    await anyio.sleep(UNKNOWN_CACHE_S)
    assert await find(tokens, "carol") == 1003


async def test_a_failed_look_up_is_not_kept() -> None:
    directory = Directory()
    tokens = directory.kept()
    directory.error = Unavailable()
    with pytest.raises(Unavailable):
        await find(tokens, "alice")
    directory.error = None
    assert await find(tokens, "alice") == 1001


async def test_when_the_task_that_asks_is_cancelled_another_one_asks() -> None:
    directory = Directory()
    tokens = directory.kept()
    users: list[int] = []

    async def ask() -> None:
        users.append(await find(tokens, "alice"))

    async def give_up() -> None:
        with anyio.move_on_after(LOOK_UP_S / 2):
            await ask()

    async with anyio.create_task_group() as group:
        group.start_soon(give_up)
        await anyio.sleep(LOOK_UP_S / 4)
        group.start_soon(ask)
    assert (users, directory.look_ups) == ([1001], 2)


async def test_what_is_forgotten_is_asked_about_again() -> None:
    directory = Directory()
    tokens = directory.kept()
    await find(tokens, "alice")
    tokens.forget(b"alice")
    tokens.forget(b"nobody")
    await find(tokens, "alice")
    assert directory.look_ups == 2


async def test_made_up_tokens_fill_a_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "CACHE_ENTRIES", 3)
    directory = Directory()
    tokens = directory.kept()
    for number in range(10):
        with pytest.raises(Unauthenticated):
            await find(tokens, f"made up {number}")
    assert len(tokens._known) == 3
