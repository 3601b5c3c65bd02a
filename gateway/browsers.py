"""What every answer tells browsers: do not guess its type, do not frame it, do not keep it, send no referrer.

Pages bring a Content-Security-Policy of their own; everything else can do nothing, should it be shown as one.
"""

from collections.abc import Callable

EVERY = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)
# Where an answer does not say itself.
KEPT_NOWHERE = (b"cache-control", b"no-store")
HARMLESS = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
# For a year. Said only where TLS is known to be: a browser that believes it does not come back without.
TLS_ALONE = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")

Protect = Callable[[bytes], bytes]


def protection(*, behind_tls: bool) -> Protect:
    """A function that puts these headers into an HTTP/1.1 head, behind its first line.

    As bytes, since h11 looks at each header of each answer anew, which would cost an order some 20 us.
    """
    every = b"\r\n" + _lines(*EVERY, *([TLS_ALONE] if behind_tls else []))
    whole = every + _lines(KEPT_NOWHERE, HARMLESS)

    def protect(head: bytes) -> bytes:
        if b"\r\ncache-control:" not in head and b"\r\ncontent-security-policy:" not in head:
            return head.replace(b"\r\n", whole, 1)
        missing = [one for one in (KEPT_NOWHERE, HARMLESS) if b"\r\n" + one[0] + b":" not in head]
        return head.replace(b"\r\n", every + _lines(*missing), 1)

    return protect


def _lines(*headers: tuple[bytes, bytes]) -> bytes:
    return b"".join(name + b": " + value + b"\r\n" for name, value in headers)
