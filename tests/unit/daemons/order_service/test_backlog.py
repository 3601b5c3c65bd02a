"""When a partition has enough to do."""

from daemons.order_service.backlog import Backlog


def test_a_partition_is_crowded_from_the_bound_on_and_the_others_are_not() -> None:
    backlog = Backlog(100)
    assert backlog.crowded() == {}
    backlog.seen(1, 99)
    assert backlog.crowded() == {}
    backlog.grown(1, 2)  # Committed since the last look.
    assert backlog.crowded() == {1: 101}
    backlog.seen(1, 60)
    assert backlog.crowded() == {}
