"""The names of the topics and how they are created."""

from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from common.config import Settings
from common.kafka_calls import cancelled_by_us_alone

MAX_RECORD_BYTES = 16 << 20
OVERHEAD_BYTES = 1 << 16  # Headers, and the framing of a batch of one record.


@dataclass(frozen=True, slots=True)
class Topics:
    orders: str
    settlements: str
    trades: str
    orderbook: str
    order_updates: str
    dead_letters: str = "exchange.dead_letters"  # What market-data could not read, for people.

    def all(self) -> list[str]:
        views = [self.trades, self.orderbook, self.order_updates]
        return [self.orders, self.settlements, *views, self.dead_letters]


def topics(settings: Settings) -> Topics:
    prefix = settings.topic_prefix
    return Topics(
        orders=f"{prefix}.orders",
        settlements=f"{prefix}.settlements",
        trades=f"{prefix}.trades",
        orderbook=f"{prefix}.orderbook",
        order_updates=f"{prefix}.order_updates",
        dead_letters=f"{prefix}.dead_letters",
    )


async def ensure_topics(settings: Settings) -> None:
    """Create what is missing, with one partition for each of the exchange; safe when run twice at once."""
    with cancelled_by_us_alone():
        await _ensure_topics(settings)


async def _ensure_topics(settings: Settings) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    try:
        await admin.start()
        present = set(await admin.list_topics())
        missing = [
            NewTopic(
                name=name,
                num_partitions=settings.partitions,
                replication_factor=settings.kafka_replication,
                topic_configs={
                    "max.message.bytes": str(MAX_RECORD_BYTES),
                    "retention.ms": str(24 * 3600 * 1000),  # PostgreSQL is the truth; this is transport.
                    "segment.bytes": str(64 << 20),
                },
            )
            for name in topics(settings).all()
            if name not in present
        ]
        if missing:
            _check(await admin.create_topics(missing))
    finally:
        await admin.close()


def _check(response: object) -> None:
    for name, code, *rest in response.topic_errors:  # type: ignore[attr-defined]  # aiokafka has no types
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            raise error(f"{name}: {rest[0] if rest else ''}")
