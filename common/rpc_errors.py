"""Errors of the exchange as gRPC statuses and back. Pure: both event loops use it.

A status is coarse; the whole error travels beside it, as `types.proto`'s Error in the trailing metadata
`error-bin`. Whoever answers without it (the library itself, a proxy) is judged by its status alone.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import grpc

from common.core import errors
from common.core.errors import ExchangeError
from exchange.v1 import types_pb2

ERROR_KEY = "error-bin"
MAX_ERROR_BYTES = 4096  # Peers refuse metadata over 8 KiB by default.

_STATUS_OF_HTTP = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.FAILED_PRECONDITION,
    503: grpc.StatusCode.UNAVAILABLE,
}
_ERROR_OF_STATUS: dict[grpc.StatusCode, type[ExchangeError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.Malformed,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.Forbidden,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Busy,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.Unavailable,
    grpc.StatusCode.CANCELLED: errors.Unavailable,
}


def status_of(error: ExchangeError) -> grpc.StatusCode:
    """The status that a client sees which knows nothing of `error-bin`."""
    match error:
        case errors.Busy():
            return grpc.StatusCode.RESOURCE_EXHAUSTED
        case errors.DuplicateClientOrderId():
            return grpc.StatusCode.ALREADY_EXISTS
        case _:
            return _STATUS_OF_HTTP.get(error.http_status, grpc.StatusCode.INTERNAL)


def error_to_proto(error: ExchangeError) -> types_pb2.Error:
    details = [types_pb2.ErrorDetail(key=key, value=value) for key, value in error.details.items()]
    return types_pb2.Error(code=error.code, message=error.message, details=details)


def error_from_proto(proto: types_pb2.Error) -> ExchangeError:
    """The error of the subclass with this code; of the base class when nobody here knows the code."""
    kind = _kind_of(proto.code) or ExchangeError
    return kind(proto.message, {detail.key: detail.value for detail in proto.details})


def error_to_bytes(error: ExchangeError) -> bytes:
    """For the metadata; one that is too large loses its details, not its code."""
    whole = error_to_proto(error).SerializeToString()
    if len(whole) <= MAX_ERROR_BYTES:
        return whole
    return types_pb2.Error(code=error.code, message=error.message[:500]).SerializeToString()


@runtime_checkable
class _Ended(Protocol):
    """What grpc's RpcErrors can do, both the synchronous and the asynchronous ones."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


def from_rpc_error(error: grpc.RpcError) -> ExchangeError:
    """What the server meant, or what its silence means."""
    if not isinstance(error, _Ended):
        return errors.Unavailable(str(error))
    for key, value in error.trailing_metadata() or ():
        if key == ERROR_KEY and isinstance(value, bytes):
            return error_from_proto(types_pb2.Error.FromString(value))
    text = error.details() or error.code().name
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in text:
        return errors.PayloadTooLarge(text)  # Not Busy: the same message will not fit later either.
    return _ERROR_OF_STATUS.get(error.code(), ExchangeError)(text)


def _kind_of(code: str) -> type[ExchangeError] | None:
    return next((kind for kind in _kinds(ExchangeError) if kind.code == code), None)


def _kinds(kind: type[ExchangeError]) -> Iterator[type[ExchangeError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _kinds(narrower)
