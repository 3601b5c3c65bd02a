"""Sliding windows against a log that keeps everything, and the pauses of who does not stop."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.windows import (
    CALM_MS,
    FIRST_PAUSE_MS,
    MOST_PAUSE_MS,
    SLOTS,
    LocalWindows,
    Outcome,
    Window,
)

TEN_S = Window(10, 10)
DAY = Window(25, 86_400)
START_MS = 1_800_000_000_123


@given(st.lists(st.tuples(st.integers(0, 4_000), st.integers(1, 4)), max_size=60))
def test_no_window_holds_more_than_its_limit_and_little_less(asked: list[tuple[int, int]]) -> None:
    windows = LocalWindows()
    now_ms, log = START_MS, list[tuple[int, int]]()
    for pause_ms, weight in asked:
        now_ms += pause_ms
        verdict = windows.check(b"x", (TEN_S,), weight, now_ms)
        longest_ms = 10_000 + TEN_S.slot_ms
        around = sum(each for at_ms, each in log if at_ms > now_ms - longest_ms)
        if verdict.allowed:
            log.append((now_ms, weight))
        elif verdict.outcome is Outcome.REFUSED:
            assert around + weight > TEN_S.limit
        exact = sum(each for at_ms, each in log if at_ms > now_ms - 10_000)
        assert exact <= verdict.used <= TEN_S.limit


@given(st.lists(st.tuples(st.integers(0, 3_000), st.integers(1, 10)), min_size=1, max_size=40))
def test_who_waits_as_told_passes(asked: list[tuple[int, int]]) -> None:
    windows = LocalWindows()
    now_ms = START_MS
    for pause_ms, weight in asked:
        now_ms += pause_ms
        verdict = windows.check(b"x", (TEN_S,), weight, now_ms)
        if not verdict.allowed:
            now_ms += verdict.retry_ms
            assert windows.check(b"x", (TEN_S,), weight, now_ms).allowed


def test_the_tightest_window_is_told_and_all_of_them_are_kept() -> None:
    windows = LocalWindows()
    both = (TEN_S, DAY)
    first = windows.check(b"x", both, 10, START_MS)
    assert (first.limit, first.used) == (10, 10)
    second = windows.check(b"x", both, 10, START_MS + 20_000)
    assert (second.limit, second.used) == (10, 10)
    refused = windows.check(b"x", both, 6, START_MS + 40_000)
    assert (refused.outcome, refused.limit, refused.used) == (Outcome.REFUSED, 25, 20)
    assert refused.retry_ms > 80_000_000
    assert windows.check(b"x", both, 5, START_MS + 40_000).allowed  # Smaller ones still fit.


def test_what_weighs_more_than_the_limit_is_told_to_wait_for_an_empty_window() -> None:
    verdict = LocalWindows().check(b"x", (TEN_S,), 11, START_MS)
    assert not verdict.allowed
    assert 10_000 <= verdict.retry_ms <= 10_000 + TEN_S.slot_ms


def test_who_overflows_again_and_again_waits_longer_and_is_forgiven_after_calm() -> None:
    windows = LocalWindows()
    one = (Window(10, 1),)
    now_ms = START_MS

    def overflow() -> int:
        """Fill the window and go on; how long the refusal says to wait."""
        nonlocal now_ms
        windows.check(b"x", one, 10, now_ms)
        verdict = windows.check(b"x", one, 1, now_ms)
        assert verdict.outcome is Outcome.REFUSED
        # More of the same changes nothing, and others do not suffer.
        for _ in range(5):
            again = windows.check(b"x", one, 1, now_ms)
            assert again.retry_ms == verdict.retry_ms
        assert windows.check(b"y%d" % now_ms, one, 10, now_ms).allowed
        now_ms += verdict.retry_ms
        return verdict.retry_ms

    assert overflow() <= 1_000 + 1_000 // SLOTS
    for strike in range(12):
        assert overflow() == min(MOST_PAUSE_MS, FIRST_PAUSE_MS << strike)
    now_ms += CALM_MS + 1
    assert overflow() <= 1_000 + 1_000 // SLOTS


def test_nothing_passes_during_a_pause() -> None:
    windows = LocalWindows()
    one = (Window(10, 1),)
    for at_ms in (0, 1_100):
        windows.check(b"x", one, 10, START_MS + at_ms)
        windows.check(b"x", one, 1, START_MS + at_ms)
    verdict = windows.check(b"x", one, 1, START_MS + 1_100 + FIRST_PAUSE_MS - 1)
    assert (verdict.outcome, verdict.retry_ms) == (Outcome.PAUSED, 1)
    assert windows.check(b"x", one, 1, START_MS + 1_100 + FIRST_PAUSE_MS).allowed


def test_the_number_of_subjects_is_bounded() -> None:
    windows = LocalWindows()
    for number in range(60_000):
        windows.check(b"%d" % number, (TEN_S,), 10, START_MS)
    assert windows.check(b"0", (TEN_S,), 10, START_MS).allowed  # Forgotten.
    assert not windows.check(b"59999", (TEN_S,), 10, START_MS).allowed
