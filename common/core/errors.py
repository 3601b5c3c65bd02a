"""The errors of the exchange: named for their cause, with codes that are stable on the wire.

`common.rpc` translates them to gRPC and back, the gateway to HTTP; nothing else does.
"""

from collections.abc import Mapping
from typing import ClassVar


class ExchangeError(Exception):
    """Base of all. `message` is for people, `details` for programs; both may be shown to the caller."""

    code: ClassVar[str] = "INTERNAL"
    http_status: ClassVar[int] = 500

    def __init__(self, message: str = "", details: Mapping[str, str] | None = None) -> None:
        super().__init__(message or (self.__doc__ or self.code).split("\n")[0])
        self.details: dict[str, str] = dict(details or {})

    @property
    def message(self) -> str:
        return str(self.args[0])


class Malformed(ExchangeError):
    """The request cannot be read; `details` maps a field to what is wrong with it."""

    code = "MALFORMED"
    http_status = 400


class Unauthenticated(ExchangeError):
    """Nobody is known by this token."""

    code = "UNAUTHENTICATED"
    http_status = 401


class Forbidden(ExchangeError):
    """The caller is known and may not do this."""

    code = "FORBIDDEN"
    http_status = 403


class NotFound(ExchangeError):
    """There is no such thing, or it is not the caller's."""

    code = "NOT_FOUND"
    http_status = 404


class UnknownSymbol(NotFound):
    """There is no market of this symbol."""

    code = "UNKNOWN_SYMBOL"


class OrderNotFound(NotFound):
    """The caller has no such order."""

    code = "ORDER_NOT_FOUND"


class Conflict(ExchangeError):
    """The request does not fit what has happened."""

    code = "CONFLICT"
    http_status = 409


class DuplicateClientOrderId(Conflict):
    """A different order was placed under this client_order_id."""

    code = "DUPLICATE_CLIENT_ORDER_ID"


class OrderNotLive(Conflict):
    """The order has ended and cannot be canceled."""

    code = "ORDER_NOT_LIVE"


class PayloadTooLarge(ExchangeError):
    """The request body is larger than the limit."""

    code = "PAYLOAD_TOO_LARGE"
    http_status = 413


class Refused(ExchangeError):
    """Well-formed, but not possible."""

    code = "REFUSED"
    http_status = 422


class InvalidPrice(Refused):
    """The price is not a positive multiple of the market's tick, or too large."""

    code = "INVALID_PRICE"


class InvalidQuantity(Refused):
    """The quantity is not a positive multiple of the market's lot, or too large."""

    code = "INVALID_QUANTITY"


class InvalidOrder(Refused):
    """The fields of the order do not go together."""

    code = "INVALID_ORDER"


class InvalidMarket(Refused):
    """The market's units or fees cannot work."""

    code = "INVALID_MARKET"


class NotionalTooSmall(Refused):
    """Price times quantity is below the market's minimum."""

    code = "NOTIONAL_TOO_SMALL"


class NotionalTooLarge(Refused):
    """Price times quantity does not fit into 64 bits of quote atoms."""

    code = "NOTIONAL_TOO_LARGE"


class InsufficientFunds(Refused):
    """The hold exceeds the available balance; both are atoms of one asset."""

    code = "INSUFFICIENT_FUNDS"


class NoReferencePrice(Refused):
    """A market buy by quantity needs a last price to size its hold; use quote_quantity."""

    code = "NO_REFERENCE_PRICE"


class MarketHalted(Refused):
    """The market takes cancels only."""

    code = "MARKET_HALTED"


class Busy(ExchangeError):
    """A queue is full; the same request may be sent again after `retry_after_s`."""

    code = "BUSY"
    http_status = 503
    retry_after_s = 1


class Unavailable(ExchangeError):
    """A part of the exchange does not answer; nothing is known to be lost."""

    code = "UNAVAILABLE"
    http_status = 503
    retry_after_s = 1
