"""The page and its parts, read once at the start and served from memory.

The charting library comes out of the installed `lightweight_charts` wheel. Only its JavaScript is
wanted: the package is not imported, since its Python half needs libraries that are not installed.
"""

import gzip
import hashlib
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from common.core.errors import NotFound
from gateway.calls import Answer, Call

_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml",
}
# No inline script or style, nothing from elsewhere. 'self' covers the WebSocket of the same origin.
_PAGE_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        b" base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
)
_EVERY_FILE = (
    (b"cache-control", b"no-cache"),  # With the ETag: one small 304 when nothing has changed.
    (b"x-content-type-options", b"nosniff"),
    (b"vary", b"accept-encoding"),
)


@dataclass(frozen=True, slots=True)
class _File:
    content_type: bytes
    body: bytes
    zipped: bytes
    etag: bytes


class StaticFiles:
    """Answers for `/` (index.html) and `/static/NAME`."""

    def __init__(self) -> None:
        self._files = {
            entry.name: _load(entry.name, entry.read_bytes())
            for entry in files("gateway").joinpath("static").iterdir()
            if Path(entry.name).suffix in _TYPES
        }
        self._files["vendor/lightweight-charts.js"] = _load("lightweight-charts.js", _charting_library())

    async def page(self, call: Call) -> Answer:
        answer = self._answer("index.html", call)
        answer.headers += _PAGE_HEADERS
        return answer

    async def file(self, call: Call, name: str) -> Answer:
        return self._answer(name, call)

    def _answer(self, name: str, call: Call) -> Answer:
        found = self._files.get(name)
        if found is None:
            raise NotFound("There is no such file.")
        headers = (*_EVERY_FILE, (b"etag", found.etag))
        if found.etag in (call.header(b"if-none-match") or b""):
            return Answer(304, b"", found.content_type, headers)
        if b"gzip" in (call.header(b"accept-encoding") or b""):
            zipped = (*headers, (b"content-encoding", b"gzip"))
            return Answer(200, found.zipped, found.content_type, zipped)
        return Answer(200, found.body, found.content_type, headers)


def _load(name: str, body: bytes) -> _File:
    digest = hashlib.sha256(body).hexdigest()[:32]
    # Weak: the same tag stands for the plain and the compressed form.
    return _File(
        _TYPES[Path(name).suffix], body, gzip.compress(body, 9, mtime=0), b'W/"' + digest.encode() + b'"'
    )


def _charting_library() -> bytes:
    spec = find_spec("lightweight_charts")
    assert spec is not None, "the lightweight-charts wheel is part of the installation"
    assert spec.origin is not None, "the lightweight-charts wheel is an ordinary package"
    return (Path(spec.origin).parent / "js" / "lightweight-charts.js").read_bytes()
