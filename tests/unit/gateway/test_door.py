"""Who is turned away when."""

from gateway.door import Door


def test_orders_are_turned_away_while_the_oldest_waits_too_long() -> None:
    waited_s = 0.0
    door = Door(lambda _: waited_s, queue_s=0.5, most_requests=10)
    assert door.refusal(places_orders=True) is None
    waited_s = 0.6
    refused = door.refusal(places_orders=True)
    assert refused is not None
    assert (refused.code, refused.retry_after_s) == ("BUSY", 1)
    assert door.refusal(places_orders=False) is None
    waited_s = 0.1
    assert door.refusal(places_orders=True) is None


def test_so_many_requests_and_no_more_are_inside() -> None:
    door = Door(lambda _: 0.0, queue_s=0.5, most_requests=2)
    for _ in range(2):
        assert door.refusal(places_orders=False) is None
        door.enter()
    assert door.refusal(places_orders=False) is not None
    assert door.refusal(places_orders=True) is not None
    door.leave()
    assert door.refusal(places_orders=True) is None


def test_the_wait_is_told_by_what_waits_and_the_rate_of_late() -> None:
    """See test_batching for the queue itself."""
    door = Door(lambda _: 0.6, queue_s=0.5, most_requests=10)
    assert door.is_crowded
    assert not Door(lambda _: 0.4, queue_s=0.5, most_requests=10).is_crowded


def test_who_comes_counts_until_it_is_in_the_queue() -> None:
    door = Door(lambda coming: 0.2 * coming, queue_s=0.5, most_requests=10)
    visits = [door.visit() for _ in range(4)]
    for visit in visits:
        visit.__enter__()
    assert door.coming == 0  # Nobody knows whether their bodies will ever be here.
    for visit in visits[:2]:
        visit.comes()
    assert not door.is_crowded
    visits[3].comes()
    assert door.refusal(places_orders=True) is not None
    assert door.refusal(places_orders=False) is None
    visits[0].queued()
    visits[0].queued()  # Said twice, counted once.
    assert door.coming == 2
    for visit in visits:
        visit.__exit__(None, None, None)
    assert door.coming == 0
    assert not door.is_crowded
