"""The names of the topics and how they are created."""

from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from common.config import Settings

MAX_RECORD_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Topics:
    orders: str
    settlements: str
    trades: str
    orderbook: str
    order_updates: str

    def all(self) -> list[str]:
        return [self.orders, self.settlements, self.trades, self.orderbook, self.order_updates]


def topics(settings: Settings) -> Topics:
    prefix = settings.topic_prefix
    return Topics(
        orders=f"{prefix}.orders",
        settlements=f"{prefix}.settlements",
        trades=f"{prefix}.trades",
        orderbook=f"{prefix}.orderbook",
        order_updates=f"{prefix}.order_updates",
    )


async def ensure_topics(settings: Settings) -> None:
    """Create what is missing, with one partition for each of the exchange; safe when run twice at once."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
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
