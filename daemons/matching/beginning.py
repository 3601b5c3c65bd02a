"""Where a restored engine begins to read exchange.orders: the stored offset is only a hint (I8)."""

from common.kafka_reader import Reader, Record
from common.restore import Restored
from common.wire import Undecodable, decode_batch

HINT_WAIT_S = 1.0


def at_end(_earliest: int, end: int) -> int:
    return end


async def check_hint(source: Reader, restored: Restored) -> None:
    """Stand after the batch at the watermark; when it is not where the hint says, at the earliest record."""
    if restored.has_hint:
        records = await source.poll(max_wait_s=HINT_WAIT_S, max_records=1)
        if not records or not _is_at(records[0], restored):
            await source.seek_earliest()


def _is_at(record: Record, restored: Restored) -> bool:
    try:
        batch = decode_batch(record.value)
    except Undecodable:
        return False
    return (batch.last_sequence, batch.chain) == (restored.snapshot.sequence, restored.snapshot.chain)
