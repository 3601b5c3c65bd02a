"""The domain: integers in, integers out, no I/O, no clock, no randomness.

Read in this order:

messages    what the engine is told and what it answers, as plain values
errors      the tree of errors with their stable codes
units       decimal text <-> ticks, lots, atoms; only the edge needs it
orders      what an order must look like, and what it holds (TX1)
fees        basis points, rounded against the user
book        price levels and queues of one market
match       what happens when an order meets the book
engine      (state, batch) -> (state, events): the only writer of books
sequencing  the hash chain of the log, and what a reader makes of a batch
ledger      settlement -> movements of money (TX2)
replay      the log once more through a fresh engine, and what the database has that differs
views       what the public sees: depth, trades, candles, tickers
"""
