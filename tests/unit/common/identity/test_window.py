"""When a signed request may arrive, and that it arrives once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core.errors import Busy, SignatureRepeated, TimestampOutsideWindow
from common.identity.window import AHEAD_MS, LocalReplays, SharedReplays, Window
from tests.harness.virtual_time import Backend, virtual_time

pytestmark = pytest.mark.anyio

NOW_MS, WINDOW_MS = 1_700_000_000_000, 5_000


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return virtual_time(request.param)


class Clock:
    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def __call__(self) -> int:
        return self.now_ms


@given(st.integers(-20_000, 20_000))
def test_a_timestamp_within_the_window_and_no_other(offset_ms: int) -> None:
    window = Window(WINDOW_MS, Clock())
    timestamp = str(NOW_MS + offset_ms)
    if -WINDOW_MS <= offset_ms <= AHEAD_MS:
        assert window.check(timestamp) == NOW_MS + offset_ms
    else:
        with pytest.raises(TimestampOutsideWindow) as caught:
            window.check(timestamp)
        assert caught.value.details["server_ms"] == str(NOW_MS)


@pytest.mark.parametrize(
    "text", ["", "now", "1.7e12", "-1", "+1700000000000", "01700000000000", "1700000000000 ", "9" * 400, "１"]
)
def test_what_is_no_timestamp_is_outside(text: str) -> None:
    with pytest.raises(TimestampOutsideWindow):
        Window(WINDOW_MS, Clock()).check(text)


async def passes(window: Window, replays: LocalReplays, signature: bytes, timestamp_ms: int) -> bool:
    try:
        window.check(str(timestamp_ms))
        await replays.take(signature, timestamp_ms)
    except (SignatureRepeated, TimestampOutsideWindow):
        return False
    return True


async def test_a_signature_is_taken_once_for_as_long_as_its_timestamp_passes() -> None:
    clock = Clock()
    window = Window(WINDOW_MS, clock)
    replays = LocalReplays(window)
    for ahead_ms in (0, AHEAD_MS):
        signature, timestamp_ms = bytes([ahead_ms % 256]), clock.now_ms + ahead_ms
        assert await passes(window, replays, signature, timestamp_ms)
        for _ in range(7):
            assert not await passes(window, replays, signature, timestamp_ms)
            clock.now_ms += 1_000


async def test_old_signatures_make_room_and_live_ones_do_not() -> None:
    clock = Clock()
    replays = LocalReplays(Window(WINDOW_MS, clock), most=100)
    for number in range(100):
        await replays.take(b"%d" % number, clock.now_ms)
    with pytest.raises(Busy):
        await replays.take(b"one more", clock.now_ms)
    with pytest.raises(SignatureRepeated):
        await replays.take(b"7", clock.now_ms)
    clock.now_ms += WINDOW_MS + AHEAD_MS + 1
    for number in range(100, 200):
        await replays.take(b"%d" % number, clock.now_ms)
    assert len(replays._taken) <= 100


async def test_what_was_signed_before_the_process_began_is_refused() -> None:
    clock = Clock()
    replays = LocalReplays(Window(WINDOW_MS, clock))
    with pytest.raises(TimestampOutsideWindow):
        await replays.take(b"s", clock.now_ms - 1)
    await replays.take(b"s", clock.now_ms)


class Store:
    """What several processes share; `away`: it does not answer."""

    def __init__(self) -> None:
        self.taken: set[bytes] = set()
        self.away = False

    async def claim(self, signature: bytes, for_ms: int) -> bool | None:
        assert for_ms == WINDOW_MS + AHEAD_MS
        if self.away:
            return None
        is_new = signature not in self.taken
        self.taken.add(signature)
        return is_new


async def test_processes_share_a_memory_and_have_their_own_while_it_is_away() -> None:
    clock, store = Clock(), Store()
    window = Window(WINDOW_MS, clock)
    one, two = SharedReplays(window, store.claim), SharedReplays(window, store.claim)
    await one.take(b"a", clock.now_ms - 100)  # The shared memory knows what was before.
    for replays in (one, two):
        with pytest.raises(SignatureRepeated):
            await replays.take(b"a", clock.now_ms - 100)
    store.away = True
    await one.take(b"b", clock.now_ms)
    with pytest.raises(SignatureRepeated):
        await one.take(b"b", clock.now_ms)
    with pytest.raises(TimestampOutsideWindow):
        await two.take(b"c", clock.now_ms - 100)
