"""The names of the topics, and which answers of Kafka are errors."""

from types import SimpleNamespace

import pytest
from aiokafka.errors import KafkaError, TopicAlreadyExistsError

from common.topics import _check, topics
from tests.harness.servers import bare_settings


def test_the_topics_are_those_of_the_design() -> None:
    assert topics(bare_settings(topic_prefix="exchange")).all() == [
        "exchange.orders",
        "exchange.settlements",
        "exchange.trades",
        "exchange.orderbook",
        "exchange.order_updates",
        "exchange.dead_letters",
    ]


def test_a_prefix_gives_an_exchange_topics_of_its_own() -> None:
    one, other = topics(bare_settings(topic_prefix="one")), topics(bare_settings(topic_prefix="other"))
    assert not set(one.all()) & set(other.all())


def test_a_topic_that_another_start_created_is_no_error() -> None:
    _check(SimpleNamespace(topic_errors=[("one", 0, None), ("two", TopicAlreadyExistsError.errno, "exists")]))


def test_what_else_kafka_refuses_is_raised_with_the_topics_name() -> None:
    with pytest.raises(KafkaError, match="two"):
        _check(SimpleNamespace(topic_errors=[("one", 0, None), ("two", 38, "replication factor")]))
