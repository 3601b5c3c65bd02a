"""What the engine settles for one long flow, byte for byte: pinned, so that no change of its code changes it.

A difference here means that old logs no longer replay to what was settled (DESIGN I4).
"""

from hashlib import sha256
from random import Random

from common.core.engine import Engine
from common.wire import encode_book, encode_settlement
from tests.property.flows import batches, flow_of

SEED, COMMANDS = 20261127, 6_000
SIZES = [1, 40, 3, 250, 7]
SETTLEMENTS = "e1ddf79f998404f5648183a86f5e234b82cfc2df09fb27977cd62cc7faa20063"
BOOKS = "858b746154e558f1bc75607e209b16ace9d88dd7d9957a425581634c584c7362"


def test_the_bytes_of_every_settlement_and_book_are_those_of_the_first_engine() -> None:
    engine = Engine(0)
    settlements, books, digests = sha256(), sha256(), 0
    for batch in batches(flow_of(Random(SEED), COMMANDS), SIZES):
        applied = engine.apply(batch)
        digests += len(applied.settlement.digests)
        settlements.update(encode_settlement(applied.settlement))
        for book in applied.books:
            books.update(encode_book(book))
    assert digests > 5, "digests of books are among the bytes"
    assert engine.resting_orders > 20, "the books are not empty in the end"
    assert (settlements.hexdigest(), books.hexdigest()) == (SETTLEMENTS, BOOKS)
