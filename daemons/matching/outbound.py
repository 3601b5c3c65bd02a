"""What one applied batch becomes on Kafka. Pure: the same batch gives the same bytes, token apart."""

from collections.abc import Sequence

from common.core.messages import Applied, BookUpdate
from common.kafka import Message
from common.topics import Topics
from common.wire import encode_book, encode_trades, settlement_parts

# A sweep of any size stays in records that the broker takes.
TRADES_A_RECORD = 5_000


def messages_for(applied: Applied, topics: Topics, *, token: int, orders_offset: int) -> list[Message]:
    """The settlement first: it is what money waits for."""
    settlement = applied.settlement
    partition = settlement.partition
    messages = [
        Message(topics.settlements, partition, part, token, orders_offset)
        for part in settlement_parts(settlement)
    ]
    for start in range(0, len(settlement.trades), TRADES_A_RECORD):
        value = encode_trades(
            partition=partition,
            last_sequence=settlement.last_sequence,
            trades=settlement.trades[start : start + TRADES_A_RECORD],
            time_us=settlement.time_us,
        )
        messages.append(Message(topics.trades, partition, value, token))
    return messages + book_messages(applied.books, topics, partition, token)


def book_messages(books: Sequence[BookUpdate], topics: Topics, partition: int, token: int) -> list[Message]:
    return [Message(topics.orderbook, partition, encode_book(book), token) for book in books]
