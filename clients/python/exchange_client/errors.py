"""What can go wrong, as one small tree. A refusal is chosen by the exchange's stable code; pure.

    ExchangeError
        NoAnswer            nobody knows what became of the request
        ProtocolError       the answer is not what the contract says
        OutOfSync           the local book cannot be read just now
        SlowConsumer        a subscription's buffer was full
        Refusal             the exchange said no; `code`, `message`, `details`, `status`
            BadRequest, Unauthenticated, Forbidden, NotFound, Conflict, Impossible, RateLimited, Unavailable
                (and below them what a bot acts upon: InsufficientFunds, OrderNotLive, ...)

A code that this version does not know is the class of its status; so new codes break nobody.
"""

from collections.abc import Mapping


class ExchangeError(Exception):
    """Base of all that this package raises about an exchange."""


class NoAnswer(ExchangeError):
    """The request may or may not have been carried out: no answer came, or only "unavailable".

    After `place` the question is answered by placing the same order object again.
    """


class NotSent(NoAnswer):
    """No connection: the request was certainly not carried out."""


class ProtocolError(ExchangeError):
    """The answer cannot be read; this client is older than the exchange, or something stands between."""


class OutOfSync(ExchangeError):
    """The book waits for its snapshot: the stream has just begun, or was interrupted."""


class SlowConsumer(ExchangeError):
    """Events came faster than they were read, and `dropped` of them are lost to this subscription.

    Reading on begins with new snapshots.
    """

    def __init__(self, dropped: int) -> None:
        super().__init__(f"{dropped} events were dropped: they came faster than they were read")
        self.dropped = dropped


class Refusal(ExchangeError):
    """The exchange said no, and changed nothing. `details` maps a field to what is wrong with it."""

    def __init__(
        self,
        code: str,
        message: str,
        details: Mapping[str, str] | None = None,
        *,
        status: int = 0,
        request_id: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.details = dict(details or {})
        self.status = status  # Of HTTP; 0 where there is none: in a batch, on a stream, over gRPC.
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class BadRequest(Refusal):
    """400 and its like: the request cannot be read."""


class Unauthenticated(Refusal):
    """401: nobody is known by these credentials, or the signature is wrong or late."""


class Forbidden(Refusal):
    """403: known, and not allowed to do this."""


class NotFound(Refusal):
    """404: there is no such thing, or it is somebody else's."""


class UnknownSymbol(NotFound):
    """There is no market of this symbol."""


class OrderNotFound(NotFound):
    """The caller has no such order."""


class Conflict(Refusal):
    """409: does not fit what has happened."""


class DuplicateClientOrderId(Conflict):
    """A different order was placed under this client_order_id."""


class OrderNotLive(Conflict):
    """The order has ended and cannot be canceled."""


class Impossible(Refusal):
    """422: well-formed, but not possible."""


class InvalidPrice(Impossible):
    """No positive multiple of the market's tick, or too large."""


class InvalidQuantity(Impossible):
    """No positive multiple of the market's lot, or too large."""


class NotionalTooSmall(Impossible):
    """Price times quantity is below the market's minimum."""


class InsufficientFunds(Impossible):
    """The order would hold more than is available."""


class MarketHalted(Impossible):
    """The market takes cancels only."""


class RateLimited(Refusal):
    """429: too many requests; `retry_after_s` says when there is room again."""


class Unavailable(Refusal):
    """503 and other 5xx: a part of the exchange is away."""


class Busy(Unavailable):
    """A queue of the exchange is full; nothing was done."""


_BY_CODE: dict[str, type[Refusal]] = {
    "MALFORMED": BadRequest,
    "UNAUTHENTICATED": Unauthenticated,
    "SIGNATURE_WRONG": Unauthenticated,
    "SIGNATURE_REPEATED": Unauthenticated,
    "TIMESTAMP_OUTSIDE_WINDOW": Unauthenticated,
    "FORBIDDEN": Forbidden,
    "PERMISSION_MISSING": Forbidden,
    "ADDRESS_NOT_ALLOWED": Forbidden,
    "NOT_FOUND": NotFound,
    "UNKNOWN_SYMBOL": UnknownSymbol,
    "UNKNOWN_CHANNEL": NotFound,
    "ORDER_NOT_FOUND": OrderNotFound,
    "CONFLICT": Conflict,
    "DUPLICATE_CLIENT_ORDER_ID": DuplicateClientOrderId,
    "ORDER_NOT_LIVE": OrderNotLive,
    "REFUSED": Impossible,
    "INVALID_PRICE": InvalidPrice,
    "INVALID_QUANTITY": InvalidQuantity,
    "INVALID_ORDER": Impossible,
    "NO_REFERENCE_PRICE": Impossible,
    "NOTIONAL_TOO_LARGE": Impossible,
    "NOTIONAL_TOO_SMALL": NotionalTooSmall,
    "INSUFFICIENT_FUNDS": InsufficientFunds,
    "MARKET_HALTED": MarketHalted,
    "TOO_MANY_SUBSCRIPTIONS": Impossible,
    "RATE_LIMITED": RateLimited,
    "UNAVAILABLE": Unavailable,
    "INTERNAL": Unavailable,
    "BUSY": Busy,
}
_BY_STATUS: dict[int, type[Refusal]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: Impossible,
    429: RateLimited,
}


def refusal(
    code: str,
    message: str,
    details: Mapping[str, str] | None = None,
    *,
    status: int = 0,
    request_id: str = "",
    retry_after_s: float | None = None,
) -> Refusal:
    """The error for a code; for an unknown one, that of the status."""
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status) or _of_class(status)
    return kind(code, message, details, status=status, request_id=request_id, retry_after_s=retry_after_s)


def _of_class(status: int) -> type[Refusal]:
    if status >= 500:
        return Unavailable
    return BadRequest if status >= 400 else Refusal
