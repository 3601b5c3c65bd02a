"""Who sends too slowly is found out soon, and who sends steadily is not."""

from gateway.pace import GRACE_S, LEAST_BYTES_PER_S, deadline_s


def ends_s(bytes_per_s: float, size: int, step_s: float = 0.1, most_s: float = 15.0) -> float | None:
    """When a sender of this pace is given up; None: it sent all."""
    now_s = got = 0.0
    while got < size:
        now_s += step_s
        if now_s > deadline_s(0.0, int(got), most_s):
            return now_s
        got += bytes_per_s * step_s
    return None


def test_a_byte_now_and_then_ends_with_the_grace() -> None:
    late_s = ends_s(1, 100_000)
    assert late_s is not None
    assert GRACE_S <= late_s < GRACE_S + 0.5


def test_a_steady_sender_may_finish() -> None:
    assert ends_s(LEAST_BYTES_PER_S * 1.5, 25_000) is None
    assert ends_s(100_000, 1 << 20) is None


def test_the_whole_time_stays_bounded() -> None:
    late_s = ends_s(LEAST_BYTES_PER_S * 1.5, 1 << 20)
    assert late_s is not None
    assert 15.0 <= late_s < 15.5
