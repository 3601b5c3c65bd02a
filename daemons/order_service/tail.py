"""The newest records of one partition of exchange.settlements, read before anybody here settles them.

Every order-service has a tail of every partition: a settler that had to connect to Kafka first would spend
most of a takeover on that. Whoever leads takes the records from it, one after the other.

Does not promise: to have all records. What a leader needs and the tail lacks is read from Kafka anew.
"""

from collections import deque

import anyio
from aiokafka.errors import KafkaError

from common.config import Settings
from common.kafka_reader import Reader, Record, reader
from common.telemetry import get_logger

BACK = 500  # Records before the end where it begins.
# What waits longer for the leader elsewhere is a backlog, and read again when it is needed.
KEEP_S = 10.0
KEEP_BYTES = 8 << 20
RECORDS = 200
BACKOFF_S = 0.2

log = get_logger(__name__)


class Tail:
    """`run` reads for ever; between `begin` and `end` one leader takes what is read."""

    def __init__(self, settings: Settings, topic: str, partition: int) -> None:
        self._settings = settings
        self._topic = topic
        self._partition = partition
        self._records: deque[tuple[float, Record]] = deque()  # With when they came.
        self.size_bytes = 0
        self._from: int | None = None  # Everything from this offset on is here, or was taken; None: not open.
        self._next = 0  # What comes next has this offset, or a higher one.
        self._wanted: int | None = None  # Where to open it; None: near the end.
        self._led = False
        self._changed = anyio.Event()
        self._reading = anyio.CancelScope()

    async def run(self) -> None:
        """Read until cancelled. Kafka may come and go."""
        while True:
            self._reading = anyio.CancelScope()
            try:
                with self._reading:
                    await self._read()
            except (KafkaError, OSError) as error:
                log.warning("settlements not read", partition=self._partition, error=repr(error))
                if self._led and self._wanted is None:
                    self._wanted = self._records[0][1].offset if self._records else self._next
                self._drop_all()
                await anyio.sleep(BACKOFF_S)

    def begin(self, offset: int) -> None:
        """A leader wants the records from this offset on.

        An offset beyond what was read is of a topic that is gone, or of a settler that was faster: then
        everything that is here is given. What is settled already harms nobody.
        """
        self._led = True
        if self._from is not None and self._from <= offset:
            self._wanted = None
            while offset <= self._next and self._records and self._records[0][1].offset < offset:
                self._drop_first()
        else:
            self._drop_all()
            self._wanted = offset
            self._reading.cancel()

    def end(self) -> None:
        """The leader goes; the next one says what it needs."""
        self._led, self._wanted = False, None
        self._tell()

    async def take(self, max_records: int) -> list[Record]:
        """The next records; waits until there are some."""
        while not self._records:
            await self._changed.wait()
        taken = [self._drop_first() for _ in range(min(max_records, len(self._records)))]
        self._tell()
        return taken

    async def _read(self) -> None:
        def start(earliest: int, end: int) -> int:
            wanted = end - BACK if self._wanted is None else self._wanted
            if wanted > end:  # Of a topic that is gone: this one is new, and all of it may be wanted.
                wanted = earliest
            begin = max(earliest, wanted)
            # Retention may have left less than was wanted; there is no more.
            self._from = begin if self._wanted is None else wanted
            self._wanted = None
            self._next = begin
            return begin

        async with reader(self._settings, self._topic, self._partition, start) as source:
            while True:
                await self._read_more(source)

    async def _read_more(self, source: Reader) -> None:
        while self._led and self.size_bytes > KEEP_BYTES:
            await self._changed.wait()  # Settling is behind: its queue is ours.
        records = await source.poll(max_records=RECORDS)
        now_s = anyio.current_time()
        for record in records:
            if record.offset < self._next and not self._led:  # The topic was made anew.
                self._drop_all()
                self._from = record.offset
            self._next = record.offset + 1
            self._records.append((now_s, record))
            self.size_bytes += len(record.value)
        if records and self._led:
            self._tell()
        while not self._led and self._records and self._is_too_much(now_s):
            self._drop_first()

    def _is_too_much(self, now_s: float) -> bool:
        return self.size_bytes > KEEP_BYTES or now_s - self._records[0][0] > KEEP_S

    def _drop_first(self) -> Record:
        _, record = self._records.popleft()
        self.size_bytes -= len(record.value)
        self._from = record.offset + 1
        return record

    def _drop_all(self) -> None:
        self._records.clear()
        self.size_bytes = 0
        self._from = None

    def _tell(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()
