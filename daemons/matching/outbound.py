"""What one applied batch becomes on Kafka. Pure: the same batch gives the same bytes, token apart."""

from collections.abc import Iterable, Sequence

from common.core.messages import Applied, BookUpdate
from common.kafka import Message
from common.topics import Topics
from common.wire import encode_book, encode_trades, settlement_parts

# A sweep of any size stays in records that the broker takes.
TRADES_A_RECORD = 5_000


def event_messages(applied: Applied, topics: Topics, orders_offset: int) -> list[Message]:
    """What money waits for, the settlement, then the trades. No token yet: `stamped` adds the leader's."""
    settlement = applied.settlement
    partition = settlement.partition
    messages = [
        Message(topics.settlements, partition, part, source_offset=orders_offset)
        for part in settlement_parts(settlement)
    ]
    for start in range(0, len(settlement.trades), TRADES_A_RECORD):
        value = encode_trades(
            partition=partition,
            last_sequence=settlement.last_sequence,
            trades=settlement.trades[start : start + TRADES_A_RECORD],
            time_us=settlement.time_us,
        )
        messages.append(Message(topics.trades, partition, value))
    return messages


def book_messages(books: Sequence[BookUpdate], topics: Topics, partition: int) -> list[Message]:
    return [Message(topics.orderbook, partition, encode_book(book)) for book in books]


def stamped(messages: Iterable[Message], token: int) -> list[Message]:
    """The messages as the leader with this token sends them."""
    return [Message(each.topic, each.partition, each.value, token, each.source_offset) for each in messages]
