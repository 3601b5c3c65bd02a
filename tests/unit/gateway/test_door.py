"""Who is turned away when."""

from gateway.door import Door


def test_orders_are_turned_away_while_the_oldest_waits_too_long() -> None:
    waited_s = 0.0
    door = Door(lambda: waited_s, queue_s=0.5, most_requests=10)
    assert door.refusal(places_orders=True) is None
    waited_s = 0.6
    refused = door.refusal(places_orders=True)
    assert refused is not None
    assert (refused.code, refused.retry_after_s) == ("BUSY", 1)
    assert door.refusal(places_orders=False) is None
    waited_s = 0.1
    assert door.refusal(places_orders=True) is None


def test_so_many_requests_and_no_more_are_inside() -> None:
    door = Door(lambda: 0.0, queue_s=0.5, most_requests=2)
    for _ in range(2):
        assert door.refusal(places_orders=False) is None
        door.enter()
    assert door.refusal(places_orders=False) is not None
    assert door.refusal(places_orders=True) is not None
    door.leave()
    assert door.refusal(places_orders=True) is None


def test_the_wait_is_told_by_what_waits_and_the_rate_of_late() -> None:
    """See test_batching for the queue itself."""
    door = Door(lambda: 0.6, queue_s=0.5, most_requests=10)
    assert door.is_crowded
    assert not Door(lambda: 0.4, queue_s=0.5, most_requests=10).is_crowded
