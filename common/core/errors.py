"""The errors of the exchange: named for their cause, with codes that are stable on the wire.

`common.rpc` translates them to gRPC and back, the gateway to HTTP; nothing else does.
"""

from collections.abc import Mapping
from typing import ClassVar


class ExchangeError(Exception):
    """Base of all. `message` is for people, `details` for programs; both may be shown to the caller.

    `remedy` says to people what to do about an error of the kind; the API's documents show it.
    """

    code: ClassVar[str] = "INTERNAL"
    http_status: ClassVar[int] = 500
    remedy: ClassVar[str] = "Send it again, under the same client_order_id; report the X-Request-Id."

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
    remedy = "Correct the request; `details` names each field."


class Unauthenticated(ExchangeError):
    """Nobody is known by this token."""

    code = "UNAUTHENTICATED"
    http_status = 401
    remedy = "Send a valid token or signature; get a new one if it has ended or been revoked."


class SignatureWrong(Unauthenticated):
    """The signature does not fit the request and the key."""

    code = "SIGNATURE_WRONG"
    remedy = "Sign exactly the bytes that are sent; the README has an example."


class SignatureRepeated(Unauthenticated):
    """A request with this very signature has been taken already; sign each with a timestamp of its own."""

    code = "SIGNATURE_REPEATED"
    remedy = "Sign it again with a new timestamp, each millisecond once for equal requests."


class TimestampOutsideWindow(Unauthenticated):
    """The timestamp of the signed request is too old, or of the future; `details` has the server's clock."""

    code = "TIMESTAMP_OUTSIDE_WINDOW"
    remedy = "Set the clock by GET /api/v1/time, or by `details.server_ms`, and sign again."


class Forbidden(ExchangeError):
    """The caller is known and may not do this."""

    code = "FORBIDDEN"
    http_status = 403
    remedy = "Use an identity that may do this."


class PermissionMissing(Forbidden):
    """The key or token does not allow this; `details.needs` names the permission."""

    code = "PERMISSION_MISSING"
    remedy = "Use a key or a session with the permission that `details.needs` names."


class AddressNotAllowed(Forbidden):
    """The key may not be used from this address."""

    code = "ADDRESS_NOT_ALLOWED"
    remedy = "Send it from an address on the key's list, or ask for another key."


class NotFound(ExchangeError):
    """There is no such thing, or it is not the caller's."""

    code = "NOT_FOUND"
    http_status = 404
    remedy = "Check the path and the id."


class UnknownSymbol(NotFound):
    """There is no market of this symbol."""

    code = "UNKNOWN_SYMBOL"
    remedy = "Take a symbol from GET /api/v1/markets."


class OrderNotFound(NotFound):
    """The caller has no such order."""

    code = "ORDER_NOT_FOUND"
    remedy = "Check the id; list your orders with GET /api/v1/orders."


class Conflict(ExchangeError):
    """The request does not fit what has happened."""

    code = "CONFLICT"
    http_status = 409
    remedy = "Look at what has happened, then decide again."


class DuplicateClientOrderId(Conflict):
    """A different order was placed under this client_order_id."""

    code = "DUPLICATE_CLIENT_ORDER_ID"
    remedy = "Give the new order a client_order_id of its own."


class OrderNotLive(Conflict):
    """The order has ended and cannot be canceled."""

    code = "ORDER_NOT_LIVE"
    remedy = "Nothing: it has ended. GET /api/v1/orders/ID says how."


class PayloadTooLarge(ExchangeError):
    """The request body is larger than the limit."""

    code = "PAYLOAD_TOO_LARGE"
    http_status = 413
    remedy = "Send less, in several requests."


class Refused(ExchangeError):
    """Well-formed, but not possible."""

    code = "REFUSED"
    http_status = 422
    remedy = "Change the request; `details` says what does not fit."


class NotASession(Refused):
    """The token in use is not a session's; the operator revokes it."""

    code = "NOT_A_SESSION"
    remedy = "Close a session with its own token; other tokens are the operator's to revoke."


class TooManySessions(Refused):
    """The key has as many sessions as it may have; end one, or wait until one ends."""

    code = "TOO_MANY_SESSIONS"
    remedy = "Use a session that is open, close one, or wait until one ends."


class InvalidPrice(Refused):
    """The price is not a positive multiple of the market's tick, or too large."""

    code = "INVALID_PRICE"
    remedy = "Round the price to the market's tick_size."


class InvalidQuantity(Refused):
    """The quantity is not a positive multiple of the market's lot, or too large."""

    code = "INVALID_QUANTITY"
    remedy = "Round the quantity to the market's lot_size."


class InvalidOrder(Refused):
    """The fields of the order do not go together."""

    code = "INVALID_ORDER"
    remedy = "Correct the fields that `details` names."


class InvalidMarket(Refused):
    """The market's units or fees cannot work."""

    code = "INVALID_MARKET"
    remedy = "Choose units that divide, and fees below 100 %."


class NotionalTooSmall(Refused):
    """Price times quantity is below the market's minimum."""

    code = "NOTIONAL_TOO_SMALL"
    remedy = "Order more, or at a price further up: see the market's min_notional."


class NotionalTooLarge(Refused):
    """Price times quantity does not fit into 64 bits of quote atoms."""

    code = "NOTIONAL_TOO_LARGE"
    remedy = "Split the order."


class InsufficientFunds(Refused):
    """The hold exceeds the available balance; both are atoms of one asset."""

    code = "INSUFFICIENT_FUNDS"
    remedy = "Order less, cancel what holds funds, or deposit."


class NoReferencePrice(Refused):
    """A market buy by quantity needs a last price to size its hold; use quote_quantity."""

    code = "NO_REFERENCE_PRICE"
    remedy = "Send quote_quantity, or a limit order."


class MarketHalted(Refused):
    """The market takes cancels only."""

    code = "MARKET_HALTED"
    remedy = "Wait until the market's status is ACTIVE again; cancels still work."


class Busy(ExchangeError):
    """A queue is full; the same request may be sent again after `retry_after_s`."""

    code = "BUSY"
    http_status = 503
    remedy = "Send the same request again after Retry-After seconds, with the same client_order_id."
    retry_after_s = 1


class Unavailable(ExchangeError):
    """A part of the exchange does not answer; nothing is known to be lost."""

    code = "UNAVAILABLE"
    http_status = 503
    remedy = "The same: send it again after Retry-After seconds, with the same client_order_id."
    retry_after_s = 1
