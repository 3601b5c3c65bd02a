"""Idempotency-Key: who carries out, who hears what, and what is kept."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from string import ascii_uppercase

import pytest
import trio
from hypothesis import assume, given
from hypothesis import strategies as st

from common.core.errors import Busy, ExchangeError, Forbidden, InsufficientFunds, Malformed, Unavailable
from exchange.v1 import internal_pb2 as internal
from gateway.calls import Answer, Call, json_answer
from gateway.errors import KeyInFlight, KeyReused
from gateway.idempotency import KEPT_S, START_S, Idempotency, fingerprint_of, name_of, read_key
from tests.harness.keys import CREATED_US, Keys
from tests.harness.virtual_time import Backend, virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Backend:
    return virtual_time("trio")


def call(key: bytes | None = b"k", body: bytes = b"{}", user: int = 7, method: str = "POST") -> Call:
    headers = [] if key is None else [(b"idempotency-key", key)]
    return Call(method, "/do", b"/do", b"", headers, "r", body, user_id=user)


class Records:
    """A memory in front that counts what it is asked and says for how long it keeps."""

    def __init__(self) -> None:
        self.kept: dict[tuple[int, str], bytes] = {}
        self.left_s: list[int] = []

    async def find(self, user_id: int, key: str) -> bytes | None:
        return self.kept.get((user_id, key))

    async def keep(self, user_id: int, key: str, answer: bytes, left_s: int) -> None:
        self.kept[user_id, key] = answer
        self.left_s.append(left_s)


class Door:
    """The stage before a handler that answers as it is told to."""

    def __init__(self) -> None:
        self.keys = Keys()
        self.records = Records()
        self.names: list[str] = []
        self.answers: Callable[[int], Answer] = lambda count: json_answer({"count": count}, 202)
        self.takes_s = 0.0
        self.claim_s = 0.0
        self.away = False
        now_s = CREATED_US / 1_000_000 + 3600
        self.stage = Idempotency(self._claim, self._settle, self.records, now_s=lambda: now_s)

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Door"]:
        async with trio.open_nursery() as running:
            running.start_soon(self.stage.run)
            yield self
            running.cancel_scope.cancel()

    async def ask(self, one: Call) -> Answer:
        return await self.stage(one, self._handle)

    async def _handle(self, one: Call) -> Answer:
        self.names.append(one.claim.name if one.claim else "")
        count = len(self.names)
        await trio.sleep(self.takes_s)
        return self.answers(count)

    async def _claim(self, claims: list[internal.KeyClaim]) -> Sequence[internal.KeyState]:
        await trio.sleep(self.claim_s)
        return [self.keys.claim(one) for one in claims]

    async def _settle(self, settlements: list[internal.KeySettlement]) -> Sequence[internal.KeyState]:
        await trio.sleep(0.001)
        if self.away:
            raise Unavailable("away")
        return [self.keys.settle(one) for one in settlements]


async def test_without_a_key_and_on_other_methods_nothing_is_asked() -> None:
    async with Door().open() as door:
        await door.ask(call(None))
        await door.ask(call(b"\xff", method="GET"))
    assert (door.names, door.keys.claims) == (["", ""], 0)


@pytest.mark.parametrize("flushed", [False, True])
async def test_the_same_again_is_answered_alike(flushed: bool) -> None:
    async with Door().open() as door:
        door.answers = lambda count: Answer(201, b'{"n": %d}' % count, b"text/plain", ((b"x-a", b"1"),))
        first = await door.ask(call())
        if flushed:
            door.records.kept.clear()
        again = await door.ask(call())
        assert (again.status, again.body, again.content_type) == (201, b'{"n": 1}', b"text/plain")
        assert again.headers == (*first.headers, (b"idempotent-replay", b"true"))
        assert (len(door.names), door.keys.claims) == (1, 2 if flushed else 1)
        assert set(door.records.left_s) == {KEPT_S - 3600}
        assert (await door.ask(call(user=8))).body == b'{"n": 2}'  # A key is its user's alone.


async def test_a_record_that_cannot_be_read_is_none() -> None:
    async with Door().open() as door:
        await door.ask(call())
        door.records.kept[7, "k"] = b"\xc1"
        assert (await door.ask(call())).status == 202
    assert len(door.names) == 1


@pytest.mark.parametrize("flushed", [False, True])
async def test_another_request_under_the_key_is_refused(flushed: bool) -> None:
    async with Door().open() as door:
        await door.ask(call())
        if flushed:
            door.records.kept.clear()
        with pytest.raises(KeyReused):
            await door.ask(call(body=b"[]"))
    assert len(door.names) == 1


async def test_two_at_once_are_done_once() -> None:
    async with Door().open() as door:
        door.takes_s = 1.0
        async with trio.open_nursery() as first:
            first.start_soon(door.ask, call())
            await trio.sleep(0.5)
            with pytest.raises(KeyInFlight) as busy:
                await door.ask(call())
            assert busy.value.retry_after_s == 1
            with pytest.raises(KeyReused):
                await door.ask(call(body=b"[]"))
        assert (await door.ask(call())).headers[-1] == (b"idempotent-replay", b"true")
    assert len(door.names) == 1


def refusing(error: ExchangeError) -> Callable[[int], Answer]:
    def answer(count: int) -> Answer:
        raise error

    return answer


@pytest.mark.parametrize(
    ("error", "times"),
    [(InsufficientFunds(), 1), (Malformed(), 1), (Busy(), 2), (Unavailable(), 2), (Forbidden(), 2)],
)
async def test_only_what_would_be_the_same_again_is_kept(error: ExchangeError, times: int) -> None:
    async with Door().open() as door:
        door.answers = refusing(error)
        answers = [await door.ask(call()) for _ in range(2)]
        assert [json.loads(answer.body)["error"]["code"] for answer in answers] == [error.code] * 2
        assert len(door.names) == times
        assert len(set(door.names)) == 1  # Each time under the same name.


async def test_an_answer_in_part_is_not_kept() -> None:
    async with Door().open() as door:
        door.answers = lambda count: Answer(202, b"[]", final=False)
        await door.ask(call())
        await door.ask(call())
    assert len(door.names) == 2


async def test_what_is_not_kept_is_not_told() -> None:
    async with Door().open() as door:
        door.away = True
        with pytest.raises(Unavailable, match="not known"):
            await door.ask(call())
        door.away = False
        with pytest.raises(KeyInFlight):
            await door.ask(call())
        door.keys.fall_silent()
        assert (await door.ask(call())).status == 202
    assert len(set(door.names)) == 1


async def test_who_was_taken_over_tells_the_answer_of_the_other() -> None:
    async with Door().open() as door:
        door.takes_s = 1.0
        async with trio.open_nursery() as slow:
            answers: list[Answer] = []

            async def ask() -> None:
                answers.append(await door.ask(call()))

            slow.start_soon(ask)
            await trio.sleep(0.5)
            door.keys.fall_silent()
            door.takes_s = 0.1
            other = await door.ask(call())
        assert answers[0].body == other.body
        assert answers[0].headers[-1] == (b"idempotent-replay", b"true")


async def test_a_handler_that_fails_or_is_cancelled_leaves_the_key_free() -> None:
    async with Door().open() as door:
        door.answers = lambda count: 1 // 0  # type: ignore[assignment,return-value]
        with pytest.raises(ZeroDivisionError):
            await door.ask(call())
        door.takes_s = 5.0
        with trio.move_on_after(1):
            await door.ask(call())
        door.answers = lambda count: Answer(202, b"")
        assert (await door.ask(call())).headers == ()


async def test_a_claim_that_came_late_does_nothing() -> None:
    async with Door().open() as door:
        door.claim_s = START_S + 1
        with pytest.raises(Unavailable, match="nothing was done"):
            await door.ask(call())
        assert door.names == []
        door.claim_s = 0.0
        assert (await door.ask(call())).status == 202


@pytest.mark.parametrize("key", [b"", b" ", b"a b", "ü".encode(), b"\x7f", b"k" * 256, b"a\tb"])
def test_a_malformed_key(key: bytes) -> None:
    with pytest.raises(Malformed) as wrong:
        read_key(call(key))
    assert list(wrong.value.details) == ["Idempotency-Key"]


def test_two_keys_are_malformed() -> None:
    twice = call()
    twice.headers *= 2
    with pytest.raises(Malformed):
        read_key(twice)


parts = st.tuples(
    st.text(ascii_uppercase, max_size=5), st.binary(max_size=5), st.binary(max_size=5), st.binary(max_size=5)
)


@given(one=parts, other=parts)
def test_only_the_same_request_has_the_same_fingerprint(
    one: tuple[str, bytes, bytes, bytes], other: tuple[str, bytes, bytes, bytes]
) -> None:
    prints = [
        fingerprint_of(Call(method, "/", target, query, [(b"date", target)], "r", body))
        for method, target, query, body in (one, other)
    ]
    assert (prints[0] == prints[1]) == (one == other)


@given(st.lists(st.binary(max_size=4), min_size=3, max_size=3), st.integers(0, 8))
def test_what_moves_from_one_part_to_the_next_is_another_request(sent: list[bytes], at: int) -> None:
    joined = b"".join(sent[1:])
    assume(at <= len(joined) and at != len(sent[1]))
    moved = Call("POST", "/", sent[0], joined[:at], [], "r", joined[at:])
    assert fingerprint_of(moved) != fingerprint_of(Call("POST", "/", sent[0], sent[1], [], "r", sent[2]))


@given(st.text("".join(map(chr, range(0x21, 0x7F))), min_size=1, max_size=255), st.integers(1, 1 << 62))
def test_a_name_is_an_orders_name(key: str, created_us: int) -> None:
    name = name_of(1001, key, created_us)
    assert len(name) == 35
    assert set(name) <= set("ik-0123456789abcdef")
    assert name != name_of(1001, key, created_us + 1)
    assert name != name_of(1002, key, created_us)
