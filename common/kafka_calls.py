"""What stands around every call into aiokafka, and what of its log is let through."""

import asyncio  # aiokafka knows no other loop.
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from aiokafka.errors import KafkaError

# A daemon has dozens of clients, and each tries again and again while the broker is away.
_SAID_EVERY_S = 5.0


@contextmanager
def cancelled_by_us_alone() -> Iterator[None]:
    """Around a call into aiokafka: turns a cancellation that is not ours into a KafkaError.

    aiokafka cancels futures and tasks of its own when connections break or clients close, and whoever waits
    for one of them is cancelled with it. A task group takes that for the end that was wished for: it cancels
    everything in it and ends without an error, and so did a whole daemon.
    """
    try:
        yield
    except asyncio.CancelledError:
        if anyio.current_effective_deadline() == float("-inf"):
            raise
        raise KafkaError("aiokafka has cancelled a call") from None


class _Seldom(logging.Filter):
    """What aiokafka says of a broker that is away it says at each try of each client; here, now and then."""

    def __init__(self) -> None:
        super().__init__()
        self._next_s: dict[object, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now_s = time.monotonic()
        if now_s < self._next_s.get(record.msg, 0.0):
            return False
        self._next_s[record.msg] = now_s + _SAID_EVERY_S
        return True


for _part in ("", ".cluster", ".conn", ".consumer.fetcher", ".producer.sender"):
    logging.getLogger(f"aiokafka{_part}").addFilter(_Seldom())
