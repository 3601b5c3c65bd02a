"""What clients say and how answers look as bytes; pure.

Server frames are never masked (RFC 6455, 5.1), so the bytes of a frame are the same for everybody.
"""

from dataclasses import dataclass
from typing import Literal

import msgspec

from common.core.errors import ExchangeError, Malformed, NotFound, Refused

INTERVALS_S = {"1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "1d": 86_400}
PRIVATE = ("orders", "balances", "fills")
MAX_CHANNELS = 200

_TEXT, _CLOSE, _PING, _PONG = 0x81, 0x88, 0x89, 0x8A
_encoder = msgspec.json.Encoder()


class UnknownChannel(NotFound):
    """There is no such channel."""

    code = "UNKNOWN_CHANNEL"


class TooManySubscriptions(Refused):
    """A connection may hold 200 subscriptions."""

    code = "TOO_MANY_SUBSCRIPTIONS"


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """One message of a client. `id` comes back in the answer."""

    op: Literal["subscribe", "unsubscribe", "auth", "ping"]
    channels: list[str] = []
    id: int | str | None = None
    token: str = ""
    api_key: str = ""
    timestamp: int | str = 0
    signature: str = ""


_request = msgspec.json.Decoder(Request)


@dataclass(frozen=True, slots=True)
class ChannelName:
    """A channel taken apart; `symbol` is empty for private ones, `interval_s` 0 but for klines."""

    kind: str
    symbol: str = ""
    interval_s: int = 0

    @property
    def private(self) -> bool:
        return self.kind in PRIVATE


def parse_request(text: str) -> Request:
    """Raises Malformed, whose message says what is wrong where."""
    try:
        return _request.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Malformed(f"not a request: {error}") from None


def request_id(text: str) -> int | str | None:
    """The `id` of a message that is no request, as far as it has one: for the error that answers it."""
    try:
        raw = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    found = raw.get("id") if isinstance(raw, dict) else None
    return found if isinstance(found, int | str) else None


def parse_channel(name: str) -> ChannelName:
    """Raises UnknownChannel; whether the symbol exists is for the caller to see."""
    parts = name.split(":")
    match parts:
        case [kind] if kind in PRIVATE:
            return ChannelName(kind)
        case ["trades" | "depth" | "ticker" as kind, symbol] if symbol:
            return ChannelName(kind, symbol)
        case ["klines", symbol, interval] if symbol and interval in INTERVALS_S:
            return ChannelName("klines", symbol, INTERVALS_S[interval])
    raise UnknownChannel(f"there is no channel {name[:80]!r}", {"channel": name[:80]})


def to_json(value: object) -> bytes:
    return _encoder.encode(value)


def data_frame(channel: str, *, snapshot: bool, sequence: int, previous: int, data: object) -> bytes:
    """The bytes of one data message; `data` may be a msgspec.Raw that was encoded before."""
    return text_frame(
        _encoder.encode(
            {
                "channel": channel,
                "type": "snapshot" if snapshot else "update",
                "sequence": sequence,
                "previous": previous,
                "data": data,
            }
        )
    )


def reply_frame(op: str, id: int | str | None, **more: object) -> bytes:
    return text_frame(_encoder.encode({"op": op, **more, "id": id}))


def error_frame(error: ExchangeError, id: int | str | None) -> bytes:
    body = {"code": error.code, "message": error.message, "details": error.details}
    return reply_frame("error", id, error=body)


def text_frame(payload: bytes) -> bytes:
    return _header(_TEXT, len(payload)) + payload


def ping_frame() -> bytes:
    return _header(_PING, 0)


def pong_frame(payload: bytes) -> bytes:
    assert len(payload) <= 125
    return _header(_PONG, len(payload)) + payload


def close_frame(code: int, reason: str) -> bytes:
    """`reason` is cut to what fits into a control frame."""
    payload = code.to_bytes(2, "big") + reason.encode()[:123].decode(errors="ignore").encode()
    return _header(_CLOSE, len(payload)) + payload


def _header(first: int, length: int) -> bytes:
    if length < 126:
        return bytes((first, length))
    if length < 1 << 16:
        return bytes((first, 126)) + length.to_bytes(2, "big")
    return bytes((first, 127)) + length.to_bytes(8, "big")
