"""A request and its answer, as plain values: what every stage of the gateway works on."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol

import msgspec

from common.identity.caller import Caller
from gateway.browsers import EVERY, HARMLESS, KEPT_NOWHERE

_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_encode = msgspec.json.Encoder().encode

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Claim:
    """The Idempotency-Key under which a call is carried out."""

    key: str
    name: str  # For the work: what is named so is done once. 35 of the characters of a client_order_id.

    def name_at(self, index: int) -> str:
        """For one piece of several."""
        return f"{self.name}.{index}"


class Visit(Protocol):
    """That a call is inside (see `gateway.door`)."""

    def comes(self) -> None:
        """It has orders, and all of it is here."""

    def queued(self) -> None:
        """Its orders go into the queue now."""


class Client(Protocol):
    """The other end of the connection that a call came by."""

    async def left(self) -> None:
        """Return when it has closed its side: it sends nothing more, and may be gone."""


@dataclass(slots=True)
class Call:
    """One HTTP request. `path` is decoded, `target` is it as sent; header names are lower case."""

    method: str
    path: str
    target: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    request_id: str
    body: bytes = b""
    address: str = ""  # Of the client: an IP address.
    route: str = "none"  # For metrics: the rule, never the path.
    user_id: int = 0  # 0 until somebody has been identified.
    caller: Caller | None = None  # Likewise.
    limit_headers: tuple[tuple[bytes, bytes], ...] = ()  # For the answer, whatever it will be.
    client: Client | None = None
    claim: Claim | None = None  # When it has an Idempotency-Key.
    visit: Visit | None = None

    _by_name: dict[bytes, bytes] | None = field(default=None, init=False, repr=False, compare=False)

    def header(self, name: bytes) -> bytes | None:
        """The first header of this lower-case name. Several are asked for of every call."""
        by_name = self._by_name
        if by_name is None:
            by_name = self._by_name = dict(reversed(self.headers))
        return by_name.get(name)


@dataclass(slots=True)
class Answer:
    """What goes back. Content-Length and X-Request-Id are added where it is sent."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    final: bool = True  # False: the same request again may well be answered otherwise.


def json_answer(value: object, status: int = 200, headers: Headers = ()) -> Answer:
    """Encode a value; ints, strings, lists, dicts, structs and None only."""
    return Answer(status, _encode(value), headers=tuple(headers))


def find_header(headers: Headers, name: bytes) -> bytes | None:
    for key, value in headers:
        if key == name:
            return value
    return None


def request_id_of(sent: bytes | None) -> str:
    """The caller's own X-Request-Id when it is a short, harmless token; else a new one."""
    if sent is not None and _SANE_REQUEST_ID.fullmatch(sent):
        return sent.decode("ascii")
    return os.urandom(8).hex()


def raw_response(answer: Answer, request_id: str, *, close: bool = True) -> bytes:
    """The answer as HTTP/1.1 bytes: for what never reaches the application."""
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}".encode("ascii")]
    headers = [*response_headers(answer, request_id), *EVERY, KEPT_NOWHERE, HARMLESS]
    lines += [name + b": " + value for name, value in headers if name != b"connection"]
    if close:
        lines.append(b"connection: close")
    lines += [b"", answer.body]
    return b"\r\n".join(lines)


def response_headers(answer: Answer, request_id: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", answer.content_type),
        (b"content-length", b"%d" % len(answer.body)),
        (b"x-request-id", request_id.encode("ascii")),
        *answer.headers,
    ]
