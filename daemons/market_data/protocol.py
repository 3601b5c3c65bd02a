"""What clients say and how answers look as bytes; pure.

Server frames are never masked (RFC 6455, 5.1), so the bytes of a frame are the same for everybody.
"""

from dataclasses import dataclass

import msgspec

from common.core.errors import ExchangeError, Malformed
from common.shown import Error
from common.socket_messages import INTERVALS_S, PRIVATE, Failed, Reply, Request, RequestId, UnknownChannel

_TEXT, _CLOSE, _PING, _PONG = 0x81, 0x88, 0x89, 0x8A
_encoder = msgspec.json.Encoder()
_request: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)


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


def request_id(text: str) -> RequestId:
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


def reply_frame(reply: Reply) -> bytes:
    return text_frame(_encoder.encode(reply))


def error_frame(error: ExchangeError, id: RequestId) -> bytes:
    return reply_frame(Failed(Error(error.code, error.message, error.details), id))


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
