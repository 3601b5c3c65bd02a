"""Ten times what the exchange can carry, for half a minute, out of the calm.

The surplus must be turned away at once (429 or 503), nothing else may fail, what was accepted must be in the
database, and when the load ends the exchange must be as it was within seconds.
"""

from bench.flow import Backlog
from bench.local import Local
from bench.pressure import Plan, Pressure, per_second, within
from bench.table import Figure, percentile

TEN_TIMES = Plan(times=10.0, connections=300, calm_s=8.0, pressure_s=30.0, after_s=12.0)
CALM_FLOOR_S = 0.1  # Answers as quick as this are calm, whatever they were before.


async def spike(
    local: Local, backlog: Backlog, sustainable_per_s: float, plan: Plan = TEN_TIMES
) -> list[Figure]:
    """`sustainable_per_s`: orders settled, as measured in the same run."""
    await backlog.below(0)
    first = backlog.given
    one = Pressure(local, backlog, sustainable_per_s, plan)
    await one.run()
    await backlog.look()
    told = one.told
    pressed = range(int(plan.calm_s), int(one.eased_s))
    refuse, accept = within(told.refuse_s, pressed), within(told.accept_s, pressed)
    if told.other:
        print(f"  other answers: {dict(told.other)}")
    return [
        Figure(
            f"{plan.times:g} times what is sustained, {plan.pressure_s:.0f} s: accepted",
            per_second(told.accepted, pressed),
            "/s",
            "",
            f"offered {sustainable_per_s * plan.times:,.0f} /s",
        ),
        Figure("  turned away", per_second(told.refused, pressed), "/s"),
        Figure("  not even sent", per_second(told.unsent, pressed), "/s"),
        Figure("  turned away after: p50", percentile(refuse, 50) * 1e3, "ms"),
        Figure("  p99", percentile(refuse, 99) * 1e3, "ms", "<= 50 ms"),
        Figure("  accepted, a batch: p50", percentile(accept, 50) * 1e3, "ms"),
        Figure("  p99", percentile(accept, 99) * 1e3, "ms"),
        Figure("  answers other than 202, 429 and 503", told.other.total(), "", "0"),
        Figure(
            "  accepted and not found", max(0, told.accepted.total() - (backlog.given - first)), "orders", "0"
        ),
        Figure("  as calm as before after", calm_after_s(one), "s", "<= 5 s"),
    ]


def calm_after_s(one: Pressure, floor_s: float = CALM_FLOOR_S) -> float:
    """From the end of the pressure until answers take no longer than twice what they took before it."""
    told, plan = one.told, one.plan
    before = within(told.accept_s, range(2, int(plan.calm_s)))
    most_s = max(floor_s, 2 * percentile(before, 99))
    late = [
        second + 1
        for second, times in told.accept_s.items()
        if second >= int(one.eased_s) and max(times, default=0.0) > most_s
    ]
    return max(0.0, max(late, default=0.0) - one.eased_s)
