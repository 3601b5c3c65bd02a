"""What the gateway counts. Names start with `exchange_gateway_` and end with their unit."""

from functools import lru_cache

from prometheus_client import Counter, Gauge, Histogram

from common.telemetry import LATENCY_BUCKETS_S

_requests = Counter(
    "exchange_gateway_requests_total", "HTTP requests answered", ["route", "method", "status"]
)
_latency = Histogram(
    "exchange_gateway_request_seconds", "From a request's headers to its answer", ["route"],
    buckets=LATENCY_BUCKETS_S,
)  # fmt: skip
_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"})

in_flight = Gauge("exchange_gateway_requests_in_flight", "HTTP requests being answered")
batch_orders = Histogram(
    "exchange_gateway_batch_orders", "Orders in one call to order-service",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000),
)  # fmt: skip
repeated_calls = Counter(
    "exchange_gateway_repeated_calls_total", "Calls tried again because an instance could not answer"
)
idempotent = Counter(
    "exchange_gateway_idempotent_requests_total", "Requests with an Idempotency-Key", ["outcome"]
)
settle_waiters = Gauge("exchange_gateway_settle_waiters", "Requests that will wait for a settlement")
queued_orders = Gauge("exchange_gateway_queued_orders", "Orders waiting for a call to order-service")
connections = Gauge("exchange_gateway_connections", "Open connections, WebSockets included")
silent_connections = Gauge("exchange_gateway_silent_connections", "Connections whose headers are awaited")
splices = Gauge("exchange_gateway_splices", "WebSockets spliced to market-data")
turned_away = Counter(
    "exchange_gateway_turned_away_total",
    "Requests answered 503 before they came in",
    ["by"],
)
rate_limited = Counter("exchange_gateway_rate_limited_total", "Requests answered 429", ["rule"])
limits_local = Counter("exchange_limits_local_total", "Limits decided without Redis")
limits_degraded = Gauge("exchange_limits_degraded", "1 while each gateway limits by itself, without Redis")
redis_turns = Counter("exchange_gateway_redis_turns_total", "Times Redis came or went", ["to"])
shed = Counter("exchange_gateway_shed_total", "Connections closed to make room or for being slow", ["why"])


@lru_cache(maxsize=4096)
def _children(route: str, method: str, status: int) -> tuple[Counter, Histogram]:
    """Looking labels up costs more than counting, so keep what was found."""
    return _requests.labels(route, method, status), _latency.labels(route)


def answered(route: str, method: str, status: int, seconds: float) -> None:
    """Count one answered request; odd methods share a label, so that nobody can invent labels."""
    count, latency = _children(route, method if method in _METHODS else "other", status)
    count.inc()
    latency.observe(seconds)
