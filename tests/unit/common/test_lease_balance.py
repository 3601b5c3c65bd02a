"""Which partition is handed over, and when: the decision alone, without a loop."""

from collections.abc import Mapping

import pytest

from common.lease_balance import (
    FIRST_REST_S,
    LAST_REST_S,
    PAUSE_S,
    STEADY_S,
    TRIAL_S,
    Balance,
    least_led,
)
from common.lease_base import Attendance, Member

STEADY = Member(ready=True, steady_s=STEADY_S)
NEW = Member(ready=True, steady_s=STEADY_S - 0.1)
COLD = Member(ready=False, steady_s=60)


def seen(led: Mapping[str, int], members: Mapping[str, Member] | None = None) -> Attendance:
    """Seen by "a", who leads the first partitions."""
    holders = [name for name, count in led.items() for _ in range(count)]
    known = dict.fromkeys(led, STEADY) | dict(members or {})
    return Attendance("a", known, dict(enumerate(holders)))


def choose(balance: Balance, seen: Attendance, now_s: float = 0.0, *, unled: int = 0) -> int | None:
    """What it chooses when all has stood like this for long enough."""
    led = [number for number, holder in seen.leaders.items() if holder == "a"]
    balance.choose(seen, led, len(seen.leaders) + unled, now_s - STEADY_S)
    return balance.choose(seen, led, len(seen.leaders) + unled, now_s)


@pytest.mark.parametrize(
    ("led", "number"),
    [
        ({"a": 4}, None),
        ({"a": 4, "b": 0}, 3),
        ({"a": 3, "b": 1}, 2),
        ({"a": 2, "b": 2}, None),
        ({"a": 1, "b": 3}, None),
        ({"a": 2, "b": 1, "c": 1}, None),
        ({"a": 2, "b": 1}, None),
        ({"a": 2, "b": 0}, 1),
        ({"a": 0, "b": 4}, None),
        ({"a": 3, "b": 2, "c": 0}, 2),
        ({"a": 2, "b": 3, "c": 0}, None),  # b has more to give.
        ({"a": 2, "b": 2, "c": 0}, None),  # One of the two gives: the last by name.
        ({"a": 2, "B": 2, "c": 0}, 1),
    ],
)
def test_who_leads_the_most_gives_when_another_leads_two_fewer(
    led: dict[str, int], number: int | None
) -> None:
    assert choose(Balance(), seen(led)) == number


@pytest.mark.parametrize("receiver", [NEW, COLD])
def test_nothing_is_given_to_one_that_has_just_come_or_is_not_ready(receiver: Member) -> None:
    assert choose(Balance(), seen({"a": 4, "b": 0}, {"b": receiver})) is None
    assert choose(Balance(), seen({"a": 4, "b": 0, "c": 0}, {"b": receiver})) == 3  # c is fit.


def test_what_nobody_leads_counts_as_if_it_were_the_receivers_already() -> None:
    assert choose(Balance(), seen({"a": 3, "b": 0}), unled=1) == 2
    assert choose(Balance(), seen({"a": 2, "b": 0}), unled=1) is None


def test_a_holder_that_does_not_attend_hinders_nobody() -> None:
    attendance = seen({"a": 3, "b": 0, "gone": 5})
    members = {name: member for name, member in attendance.members.items() if name != "gone"}
    assert choose(Balance(), Attendance("a", members, attendance.leaders)) == 2


def test_nothing_is_given_while_leaders_change_otherwise() -> None:
    """The one they were taken from may be dead, and still be counted as a member."""
    balance, led = Balance(), [0, 1, 2]
    attendance = seen({"a": 3, "b": 0, "c": 1})
    assert choose(balance, attendance, 0.0) == 2
    taken = Attendance("a", attendance.members, {0: "a", 1: "a", 2: "a", 3: "b"})
    assert balance.choose(taken, led, 4, 10.0) is None
    assert balance.choose(taken, led, 4, 9.9 + STEADY_S) is None
    assert balance.choose(taken, led, 4, 10.0 + STEADY_S) == 2


def test_handovers_come_one_at_a_time_with_a_pause() -> None:
    balance = Balance()
    before = seen({"a": 4, "b": 0})
    assert choose(balance, before) == 3
    balance.gave(3, 0.0)
    assert choose(balance, before, PAUSE_S - 0.1) is None
    vacant = Attendance("a", before.members, {0: "a", 1: "a", 2: "a"})
    assert balance.choose(vacant, [0, 1, 2], 4, 9.0) is None  # Not led again yet.
    taken = Attendance("a", before.members, {0: "a", 1: "a", 2: "a", 3: "b"})
    assert balance.choose(taken, [0, 1, 2], 4, PAUSE_S) == 2


def test_what_comes_back_makes_it_rest_longer_and_longer() -> None:
    balance, now_s, rests_s = Balance(), 0.0, []
    attendance = seen({"a": 4, "b": 0})
    for _ in range(8):
        given_s = now_s
        number = choose(balance, attendance, now_s)
        assert number == 3
        balance.gave(number, now_s)
        assert balance.took(number, now_s + 5)
        while choose(balance, attendance, now_s) is None:
            now_s += 1
        rests_s.append(now_s - given_s - 5)
    assert rests_s[:3] == [FIRST_REST_S, 2 * FIRST_REST_S, 4 * FIRST_REST_S]
    assert max(rests_s) == LAST_REST_S


def test_a_handover_that_lasted_forgives_those_before_it() -> None:
    balance = Balance()
    for given_s in (0.0, 1000.0):
        balance.gave(3, given_s)
        assert balance.took(3, given_s + 1)
    balance.gave(3, 2000.0)
    assert not balance.took(3, 2000.0 + TRIAL_S)  # It went well; then the other left.
    balance.gave(3, 3000.0)
    balance.gave(2, 3100.0)
    assert balance.took(2, 3101.0)
    assert choose(balance, seen({"a": 4, "b": 0}), 3101.0 + FIRST_REST_S) == 3


def test_the_fewest_that_another_ready_member_leads() -> None:
    assert least_led(seen({"a": 4})) is None
    assert least_led(seen({"a": 0, "b": 3, "c": 1})) == 1
    assert least_led(seen({"a": 0, "b": 3, "c": 1}, {"c": COLD})) == 3
    assert least_led(seen({"a": 0, "b": 3, "c": 1}), but="c") == 3
