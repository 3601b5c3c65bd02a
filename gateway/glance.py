"""Whether bytes are one whole request that places orders, and nothing else, without an HTTP parser; pure.

For turning such a request away at a tenth of the price. Whatever is unusual about the bytes is for the parser
to judge, so this may say no to a good request, and must not say yes to anything that the parser would read
in another way: an odd header, a second length, a body that is not here, or the next request behind it.
"""

import re

_HEAD = re.compile(
    rb"POST /api/v1/orders(?:/batch)? HTTP/1\.1\r\n"
    rb"(?:[A-Za-z0-9-]+:[ \t]*[\x21-\x7e][ \t\x21-\x7e]*\r\n)*\r\n"
)
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,7})[ \t]*\r\n", re.IGNORECASE)
_HOST = re.compile(rb"\r\nhost:", re.IGNORECASE)
_UNUSUAL = re.compile(rb"\r\n(?:transfer-encoding|expect|upgrade|connection|origin):", re.IGNORECASE)
_REQUEST_ID = re.compile(rb"\r\nx-request-id:[ \t]*([^\r\n]*?)[ \t]*\r\n", re.IGNORECASE)


def glance(data: bytes) -> bytes | None:
    """The head of the request (with its empty line) when `data` is one such request; else None."""
    match = _HEAD.match(data)
    if match is None:
        return None
    head = match[0]
    lengths = _LENGTH.findall(head)
    if len(lengths) != 1 or len(head) + int(lengths[0]) != len(data):
        return None
    if len(_HOST.findall(head)) != 1 or head.lower().count(b"content-length") != 1 or _UNUSUAL.search(head):
        return None
    return head


def request_id(head: bytes) -> bytes | None:
    """The X-Request-Id of a head, if it has one."""
    match = _REQUEST_ID.search(head)
    return match[1] if match else None
