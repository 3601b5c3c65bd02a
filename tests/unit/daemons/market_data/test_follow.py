"""Where a partition is read after the connection, or Kafka itself, was lost."""

from collections.abc import Sequence

from common.health import Health
from common.kafka_reader import Record
from daemons.market_data.follow import Follow, Progress, _Reading
from tests.harness.servers import bare_settings


async def _take(_partition: int, _records: Sequence[Record]) -> None:
    raise AssertionError("nothing is read here")


class Stand:
    def __init__(self, back: int) -> None:
        progress = Progress(Health(), "order_updates", 1)
        follow = Follow(bare_settings(), "order_updates", "topic", 0, back, _take, progress)
        self.new_topics = 0
        follow.on_new_topic = self._count
        self.reading = _Reading(follow)

    def _count(self) -> None:
        self.new_topics += 1


def test_it_begins_some_way_back_and_goes_on_where_it_was() -> None:
    stand = Stand(back=10)
    assert stand.reading.start(0, 100) == 90
    stand.reading._position = 120
    assert stand.reading.start(5, 150) == 120
    assert stand.reading.start(130, 150) == 130  # Retention.
    assert stand.new_topics == 0


def test_a_topic_that_ends_before_it_is_another_one() -> None:
    stand = Stand(back=0)
    assert stand.reading.start(0, 100) == 100
    assert stand.reading.start(0, 7) == 0
    assert stand.new_topics == 1


def test_more_than_there_is_means_everything() -> None:
    assert Stand(back=1 << 62).reading.start(3, 100) == 3


def test_it_is_told_once_when_every_partition_is_read() -> None:
    told: list[str] = []
    progress = Progress(Health(), "order_updates", 2, lambda: told.append("all"))
    for partition in (1, 1):
        progress.caught_up(partition)
    assert told == []
    for partition in (0, 0, 1):
        progress.caught_up(partition)
    assert told == ["all"]
