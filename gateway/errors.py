"""The errors that only HTTP knows, and how any error becomes an answer."""

import sys
from collections.abc import Mapping

from common import socket_messages
from common.core import errors
from common.core.errors import ExchangeError
from gateway.calls import Answer, json_answer


class MethodNotAllowed(ExchangeError):
    """The path exists, but not for this method."""

    code = "METHOD_NOT_ALLOWED"
    http_status = 405
    remedy = "Use a method of the Allow header."


class KeyInFlight(ExchangeError):
    """A request with this Idempotency-Key is being carried out; ask again after `retry_after_s`."""

    code = "IDEMPOTENCY_KEY_IN_FLIGHT"
    http_status = 409
    retry_after_s = 1
    remedy = "Send it again after Retry-After seconds, with the same key."


class KeyReused(ExchangeError):
    """This Idempotency-Key belongs to another request; a new request needs a new key."""

    code = "IDEMPOTENCY_KEY_REUSED"
    http_status = 422
    remedy = "Take a new key for a new request; a repetition must be the same to the byte."


class RequestTimeout(ExchangeError):
    """The request did not arrive in time."""

    code = "REQUEST_TIMEOUT"
    http_status = 408
    remedy = "Send the whole request at once, on a new connection."


class UpgradeRequired(ExchangeError):
    """A WebSocket must be the first request of a new connection."""

    code = "UPGRADE_REQUIRED"
    http_status = 426
    remedy = "Open a new connection for the WebSocket."


class RateLimited(ExchangeError):
    """Too much was asked within a window; nothing was done, and there is room again after `retry_after_s`."""

    code = "RATE_LIMITED"
    http_status = 429
    remedy = "Wait Retry-After seconds; `details` and the RateLimit headers say which window is full."

    def __init__(self, message: str, retry_after_s: int, details: Mapping[str, str] | None = None) -> None:
        super().__init__(message, details)
        self.retry_after_s = retry_after_s


class TooManyConnections(ExchangeError):
    """This address holds as many connections as one may; close some."""

    code = "TOO_MANY_CONNECTIONS"
    http_status = 429
    retry_after_s = 1
    remedy = "Close connections, or use those that are open: each carries any number of requests."


class HeadersTooLarge(ExchangeError):
    """The request's headers are larger than 16 KiB."""

    code = "HEADERS_TOO_LARGE"
    http_status = 431
    remedy = "Send fewer or shorter headers."


def public_errors() -> list[type[ExchangeError]]:
    """Every error that a user of the API can meet."""
    return [
        kind
        for module in (errors, socket_messages, sys.modules[__name__])
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, ExchangeError) and kind.__module__ == module.__name__
    ]


def error_json(error: ExchangeError) -> dict[str, object]:
    """The object under `error` in an answer."""
    return {"code": error.code, "message": error.message, "details": error.details}


def error_answer(error: ExchangeError) -> Answer:
    """The answer for an error, with the headers that its status asks for."""
    headers: list[tuple[bytes, bytes]] = []
    retry_after_s = getattr(error, "retry_after_s", 0)
    if retry_after_s:
        headers.append((b"retry-after", b"%d" % retry_after_s))
    if error.http_status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.http_status in (408, 413):
        headers.append((b"connection", b"close"))  # The rest of the body will not be read.
    return json_answer({"error": error_json(error)}, error.http_status, headers)
