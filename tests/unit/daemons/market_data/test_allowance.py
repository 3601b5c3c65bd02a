"""The bucket, against what it promises."""

from hypothesis import given
from hypothesis import strategies as st

from daemons.market_data.allowance import Allowance


def test_a_burst_and_then_the_pace() -> None:
    allowance = Allowance(8, 5, 100.0)
    assert [allowance.take(1, 100.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert allowance.take(1, 100.125)
    assert not allowance.take(1, 100.125)
    assert [allowance.take(1, 200.0) for _ in range(6)] == [True] * 5 + [False]


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(1, 5))))
def test_never_more_than_the_burst_and_the_pace(asked: list[tuple[float, int]]) -> None:
    allowance = Allowance(3, 5, 0.0)
    now_s, taken = 0.0, 0
    for pause_s, amount in asked:
        now_s += pause_s
        if allowance.take(amount, now_s):
            taken += amount
        assert taken <= 5 + 3 * now_s + 1e-6
