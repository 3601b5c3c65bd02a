"""A request and its answer, as plain values: what every stage of the gateway works on."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus

import msgspec

_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_encode = msgspec.json.Encoder().encode

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(slots=True)
class Call:
    """One HTTP request. `path` is decoded, `target` is as sent; header names are lower case."""

    method: str
    path: str
    target: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    request_id: str
    body: bytes = b""
    route: str = "none"  # For metrics: the rule, never the path.
    user_id: int = 0  # 0 until somebody has been identified.

    def header(self, name: bytes) -> bytes | None:
        """The first header of this lower-case name."""
        return find_header(self.headers, name)


@dataclass(slots=True)
class Answer:
    """What goes back. Content-Length and X-Request-Id are added where it is sent."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()


def json_answer(value: object, status: int = 200, headers: Headers = ()) -> Answer:
    """Encode a value; ints, strings, lists, dicts and None only."""
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


def raw_response(answer: Answer, request_id: str) -> bytes:
    """The answer as HTTP/1.1 bytes that end the connection: for what never reaches the application."""
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}".encode("ascii")]
    lines += [
        name + b": " + value for name, value in response_headers(answer, request_id) if name != b"connection"
    ]
    lines += [b"connection: close", b"", answer.body]
    return b"\r\n".join(lines)


def response_headers(answer: Answer, request_id: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", answer.content_type),
        (b"content-length", b"%d" % len(answer.body)),
        (b"x-request-id", request_id.encode("ascii")),
        *answer.headers,
    ]
