"""What market-data counts. Names start with `exchange_market_data_`; labels have few values each."""

from prometheus_client import Counter, Gauge, Histogram

from common.telemetry import LATENCY_BUCKETS_S

_PREFIX = "exchange_market_data_"

records = Counter(_PREFIX + "records_total", "Records read from Kafka", ["topic"])
lag = Gauge(_PREFIX + "lag_records", "Records of a partition not yet read", ["topic", "partition"])
stale_token = Counter(
    _PREFIX + "stale_token_total", "Records dropped because a newer leader has spoken (I6)", ["topic"]
)
repeats = Counter(_PREFIX + "repeats_total", "Events dropped because they were seen before", ["topic"])
told_directly = Counter(
    _PREFIX + "told_directly_total",
    "Records of order updates that the settler told ahead of Kafka, by what became of them",
    ["result"],
)
undecodable = Counter(_PREFIX + "undecodable_total", "Records that are not what their topic holds", ["topic"])
dead_letters = Counter(
    _PREFIX + "dead_letters_total", "Such records put on exchange.dead_letters, or not", ["result"]
)
book_gaps = Counter(_PREFIX + "book_gaps_total", "Book updates that did not follow the last one")
reseeks = Counter(_PREFIX + "reseeks_total", "Times a partition of the order book was read again")
trades_fetched = Counter(_PREFIX + "trades_fetched_total", "Missed trades fetched from PostgreSQL")
trades_missed = Counter(_PREFIX + "trades_missed_total", "Trades given up on: neither sent nor settled")

clients = Gauge(_PREFIX + "clients", "Open WebSocket connections")
subscriptions = Gauge(_PREFIX + "subscriptions", "Subscriptions by kind of channel", ["kind"])
frames_out = Counter(_PREFIX + "frames_out_total", "WebSocket data frames sent")
bytes_out = Counter(_PREFIX + "bytes_out_total", "WebSocket bytes sent")
frames_encoded = Counter(_PREFIX + "frames_encoded_total", "Frames encoded; each may go to many clients")
conflations = Counter(_PREFIX + "conflations_total", "Catch-up frames made for slow clients", ["kind"])
closes = Counter(_PREFIX + "closes_total", "WebSocket connections ended, by reason", ["reason"])
handshakes_refused = Counter(_PREFIX + "handshakes_refused_total", "Upgrades that failed", ["reason"])
publish_to_send = Histogram(
    _PREFIX + "publish_to_send_seconds",
    "From an event's arrival here to its bytes handed to the last of the sockets; the oldest frame of a send",
    buckets=LATENCY_BUCKETS_S,
)
event_age = Histogram(
    _PREFIX + "event_age_seconds",
    "From a batch's time (TX1) to its arrival here; both clocks differ by little on one machine",
    ["topic"],
    buckets=LATENCY_BUCKETS_S,
)

redis_writes = Counter(_PREFIX + "redis_writes_total", "Snapshots offered to Redis", ["result"])
candle_trades = Counter(_PREFIX + "candle_trades_total", "Settled trades put into stored candles")
candle_refused = Counter(_PREFIX + "candle_refused_total", "Candle writes refused for their token (I6)")
balance_fetches = Counter(_PREFIX + "balance_fetches_total", "Account look-ups", ["result"])
revoked = Counter(_PREFIX + "revoked_total", "Connections that lost their private channels")
