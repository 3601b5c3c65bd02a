"""The errors that only HTTP knows, and how any error becomes an answer."""

from common.core.errors import ExchangeError
from gateway.calls import Answer, json_answer


class MethodNotAllowed(ExchangeError):
    """The path exists, but not for this method."""

    code = "METHOD_NOT_ALLOWED"
    http_status = 405


class RequestTimeout(ExchangeError):
    """The request did not arrive in time."""

    code = "REQUEST_TIMEOUT"
    http_status = 408


class UpgradeRequired(ExchangeError):
    """A WebSocket must be the first request of a new connection."""

    code = "UPGRADE_REQUIRED"
    http_status = 426


class HeadersTooLarge(ExchangeError):
    """The request's headers are larger than 16 KiB."""

    code = "HEADERS_TOO_LARGE"
    http_status = 431


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
