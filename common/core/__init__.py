"""The domain: integers in, integers out, no I/O, no clock, no randomness.

Read in this order:

messages    what the engine is told and what it answers, as plain values
errors      the tree of errors with their stable codes
units       decimal text <-> ticks, lots, atoms; only the edge needs it
orders      what an order must look like, and what it holds (TX1)
fees        basis points, rounded against the user
levels      orders, the queue of a price, and one side of a book
book        one market: both sides, and who owns what
match       what happens when an order meets the book
engine      (state, batch) -> (state, events): the only writer of books
outward     the engine's objects as others see them; restoring: the way back
sequencing  the hash chain of the log, and what a reader makes of a batch
ledger      settlement -> movements of money (TX2)
replay      the log once more through a fresh engine, and what the database has that differs
views       what the public sees: depth, trades, candles, tickers
compiled    where the compiled form of what is hot is, if it was made of these sources

`COMPILED` tells which form runs; `python -X pure_core` runs the sources.
"""

import sys

from common.core import compiled

_BUILD = compiled.folder()
COMPILED = "pure_core" not in sys._xoptions and compiled.is_complete(_BUILD)
if COMPILED:
    __path__.insert(0, str(_BUILD))  # Imports of this package's modules look there first.
