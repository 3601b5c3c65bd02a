"""What heads of answers become."""

import pytest

from gateway.browsers import protection
from gateway.calls import Answer, raw_response

PLAIN = b"HTTP/1.1 200 \r\ncontent-type: application/json\r\n\r\n"


def headers(head: bytes) -> dict[bytes, bytes]:
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    assert first.startswith(b"HTTP/1.1 200")
    names = [line.split(b": ")[0] for line in lines]
    assert len(set(names)) == len(names)
    return dict(line.split(b": ", 1) for line in lines)


@pytest.mark.parametrize("behind_tls", [False, True])
def test_every_answer_is_protected(behind_tls: bool) -> None:
    found = headers(protection(behind_tls=behind_tls)(PLAIN))
    assert found[b"content-type"] == b"application/json"
    assert found[b"x-content-type-options"] == b"nosniff"
    assert found[b"x-frame-options"] == b"DENY"
    assert found[b"referrer-policy"] == b"no-referrer"
    assert found[b"cache-control"] == b"no-store"
    assert found[b"content-security-policy"] == b"default-src 'none'; frame-ancestors 'none'"
    assert (b"strict-transport-security" in found) is behind_tls


def test_what_an_answer_says_itself_stands() -> None:
    protect = protection(behind_tls=False)
    own = PLAIN.replace(b"\r\n\r\n", b"\r\ncache-control: no-cache\r\n\r\n")
    assert headers(protect(own))[b"cache-control"] == b"no-cache"
    assert b"content-security-policy" in headers(protect(own))
    page = own.replace(b"\r\n\r\n", b"\r\ncontent-security-policy: default-src 'self'\r\n\r\n")
    assert headers(protect(page))[b"content-security-policy"] == b"default-src 'self'"


def test_answers_before_the_application_are_protected_too() -> None:
    head = raw_response(Answer(200, b"{}"), "r").partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    assert headers(head).keys() > {b"x-content-type-options", b"cache-control", b"content-security-policy"}
