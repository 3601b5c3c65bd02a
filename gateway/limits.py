"""Who may ask how much: which request counts for whom, how heavy it is, and what its answer says of that.

    public reads           by address      EXCHANGE_LIMIT_IP_10S
    /healthz and the like  by address      the same again, of their own: a busy page must not blind a probe
    wrong credentials      by address      a tenth of that
    private reads, cancels by user         EXCHANGE_LIMIT_USER_10S
    new orders             by user         EXCHANGE_LIMIT_ORDERS_10S and _DAY; a batch weighs its orders

An address is an IPv4 address or an IPv6 network of 64 bits, which is what one customer has. What is refused
hears 429 with Retry-After, and has changed nothing. Not limited here: WebSockets (market-data limits what a
connection may do), and gRPC, which does not pass the gateway.
"""

from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Network

import msgspec

from common.config import Settings
from common.core.errors import (
    AddressNotAllowed,
    SignatureRepeated,
    TimestampOutsideWindow,
    Unauthenticated,
)
from gateway import metrics
from gateway.calls import Answer, Call
from gateway.errors import RateLimited
from gateway.limiter import Limiter
from gateway.pipeline import Handler
from gateway.redis_pipe import RedisPipe
from gateway.windows import Verdict, Window

ORDERS = "/api/v1/orders"
BATCH = ORDERS + "/batch"
MOST_ORDERS = 1_000  # Of a batch; a longer one is refused by its handler.
FAILURES_SHARE = 10

# What one request weighs, by its route: what is dear to answer counts for more.
PUBLIC = {
    "/api/v1/markets": 1,
    "/api/v1/orderbook": 2,
    "/api/v1/trades": 2,
    "/api/v1/klines": 2,
    "/api/v1/ticker": 1,
    "/api/v1/time": 1,
    "/api/v1/test/join": 1,
    "/api/v1/openapi.json": 2,
    "/api/v1/asyncapi.json": 2,
    "/": 1,
    "/docs": 1,
    "/static/<path:name>": 1,
}
OPS = {"/healthz": 1, "/readyz": 1, "/metrics": 2}
PRIVATE = {
    ("GET", ORDERS): 2,
    ("DELETE", ORDERS): 5,
    ("POST", "/api/v1/session"): 20,
    ("GET", "/api/v1/fills"): 2,
}  # 1 for all others.

_elements = msgspec.json.Decoder(list[msgspec.Raw])


def limiter(settings: Settings, pipe: RedisPipe) -> Limiter:
    """The rules as the settings have them."""
    return Limiter(
        pipe,
        settings.topic_prefix,
        {
            "ip": _windows((settings.limit_ip_10s, 10)),
            "ops": _windows((settings.limit_ip_10s, 10)),
            "failures": _windows((-(-settings.limit_ip_10s // FAILURES_SHARE), 10)),
            "user": _windows((settings.limit_user_10s, 10)),
            "orders": _windows((settings.limit_orders_10s, 10), (settings.limit_orders_day, 86_400)),
        },
    )


def _windows(*limits: tuple[int, int]) -> tuple[Window, ...]:
    """A limit of 0 is none."""
    return tuple(Window(limit, length_s) for limit, length_s in limits if limit)


class Limits:
    """Two stages of the pipeline."""

    def __init__(self, limiter: Limiter, knows: Callable[[Call], bool] = lambda _: False) -> None:
        """`knows` its caller, without asking anybody: who shares an address with a guesser is let through."""
        self._limiter = limiter
        self._knows = knows

    async def by_address(self, call: Call, rest: Handler) -> Answer:
        """Before anybody is known: public requests, and those whose credentials turn out to be wrong."""
        if call.route in PUBLIC:
            await self._pass(call, "ip", subject_of(call.address), PUBLIC[call.route])
        elif call.route in OPS:
            await self._pass(call, "ops", subject_of(call.address), OPS[call.route])
        else:
            subject = subject_of(call.address)
            paused = self._limiter.pause("failures", subject)
            if paused is not None and not self._knows(call):
                raise _refusal("failures", paused)
            try:
                return await rest(call)
            except (SignatureRepeated, TimestampOutsideWindow):
                raise  # A clock that is wrong guesses nothing.
            except (Unauthenticated, AddressNotAllowed):
                await self._pass(call, "failures", subject, 1)
                raise
        return await rest(call)

    async def by_user(self, call: Call, rest: Handler) -> Answer:
        """When the user is known."""
        subject = b"%d" % call.user_id
        if call.method == "POST" and call.route == ORDERS:
            await self._pass(call, "orders", subject, 1)
        elif call.method == "POST" and call.route == BATCH:
            await self._pass(call, "orders", subject, orders_in(call.body))
        else:
            await self._pass(call, "user", subject, PRIVATE.get((call.method, call.route), 1))
        return await rest(call)

    async def _pass(self, call: Call, rule: str, subject: bytes, weight: int) -> None:
        """Returns when there is room; raises RateLimited."""
        verdict = await self._limiter.check(rule, subject, weight)
        if verdict is None:
            return
        call.limit_headers = headers_of(verdict)
        if not verdict.allowed:
            metrics.rate_limited.labels(rule).inc()
            raise _refusal(rule, verdict)


_NAMES = {
    "ip": "requests from this address",
    "ops": "requests from this address",
    "failures": "requests with wrong credentials from this address",
    "user": "requests of this user",
    "orders": "orders of this user",
}


def _refusal(rule: str, verdict: Verdict) -> RateLimited:
    retry_s = -(-verdict.retry_ms // 1_000)
    message = f"Too many {_NAMES[rule]}; nothing was done. There is room again in {retry_s} s."
    return RateLimited(message, retry_s, {"limit": str(verdict.limit), "used": str(verdict.used)})


def headers_of(verdict: Verdict) -> tuple[tuple[bytes, bytes], ...]:
    """How the tightest of the windows stands."""
    return (
        (b"ratelimit-limit", b"%d" % verdict.limit),
        (b"ratelimit-used", b"%d" % verdict.used),
        (b"ratelimit-remaining", b"%d" % max(0, verdict.limit - verdict.used)),
        (b"ratelimit-reset", b"%d" % -(-verdict.reset_ms // 1_000)),
    )


def orders_in(body: bytes) -> int:
    """How many orders a batch has; 1 when it cannot be read, which its handler will say."""
    try:
        return min(MOST_ORDERS, max(1, len(_elements.decode(body))))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return 1


@lru_cache(maxsize=4096)
def subject_of(address: str) -> bytes:
    """What an address counts for."""
    if ":" not in address:
        return address.encode()
    plain = address.partition("%")[0]
    if plain.lower().startswith("::ffff:") and "." in plain:
        return plain[7:].encode()  # An IPv4 address on a socket that takes both.
    return str(IPv6Network(f"{plain}/64", strict=False)).encode()
