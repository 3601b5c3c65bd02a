"""What matching counts."""

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1)

APPLIED = Counter("exchange_matching_commands_total", "Commands applied", ["partition"])
TRADES = Counter("exchange_matching_trades_total", "Trades made", ["partition"])
AGAIN = Counter("exchange_matching_republished_batches_total", "Batches published again", ["partition"])
GAPS = Counter("exchange_matching_gaps_total", "Gaps seen in exchange.orders", ["partition"])
RESTORES = Counter("exchange_matching_restores_total", "Engines restored from PostgreSQL", ["partition"])
DIGESTS = Counter(
    "exchange_matching_digests_total", "Digests compared with the settled ones", ["partition", "same"]
)
SEQUENCE = Gauge("exchange_matching_sequence", "Sequence of the engine", ["partition"])
RESTING = Gauge("exchange_matching_resting_orders", "Orders that rest in the books", ["partition"])
KEPT = Gauge("exchange_matching_kept_bytes", "Events that are not settled yet, about", ["partition"])
ROUND = Histogram(
    "exchange_matching_round_seconds",
    "Decoding, applying and publishing what one poll brought",
    buckets=_SECONDS,
)
TAKEOVER = Histogram(
    "exchange_matching_takeover_seconds",
    "From the lease to the last kept event published",
    buckets=_SECONDS,
)
