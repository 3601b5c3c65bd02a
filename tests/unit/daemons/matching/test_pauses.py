"""An engine in a thread keeps the interpreter for a while, and then lets others go on."""

import time

import pytest

from daemons.matching.pauses import KEEP_S, Pauses


def test_the_interpreter_is_given_away_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, given_at_s = 10.0, []
    monkeypatch.setattr(time, "perf_counter", lambda: now_s)
    monkeypatch.setattr(time, "sleep", lambda _: given_at_s.append(now_s))
    pause = Pauses()
    for step in range(1, 9):
        now_s = 10.0 + step * 0.45 * KEEP_S
        pause()
    assert given_at_s == [10.0 + step * 0.45 * KEEP_S for step in (3, 6)]
