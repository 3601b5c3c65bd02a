"""The pages and their parts, read once at the start and served from memory.

The charting library comes out of the installed `lightweight_charts` wheel. Only its JavaScript is
wanted: the package is not imported, since its Python half needs libraries that are not installed.
"""

import gzip
import hashlib
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from common.core.errors import NotFound
from gateway.calls import Answer, Call
from gateway.declaration import NotJson, Route
from gateway.query import Query, Text

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
    (b"cross-origin-opener-policy", b"same-origin"),
)
_EVERY_FILE = (
    (b"cache-control", b"no-cache"),  # With the ETag: one small 304 when nothing has changed.
    (b"vary", b"accept-encoding"),
)


NAME = Text("name", "A file of the page", required=True)


@dataclass(frozen=True, slots=True)
class _File:
    content_type: bytes
    body: bytes
    zipped: bytes
    etag: bytes


class StaticFiles:
    """Answers for `/`, `/docs` and `/static/NAME`."""

    section: ClassVar = "Page"

    def __init__(self) -> None:
        self._files = {
            entry.name: _load(entry.name, entry.read_bytes())
            for entry in files("gateway").joinpath("static").iterdir()
            if Path(entry.name).suffix in _TYPES
        }
        self._files["vendor/lightweight-charts.js"] = _load("lightweight-charts.js", _charting_library())

    @Route("GET", "/", "The page", {200: NotJson("text/html")}, any_query=True, documented=False)
    async def page(self, call: Call, _: Query) -> Answer:
        return self._page("index.html", call)

    @Route("GET", "/docs", "The API", {200: NotJson("text/html")}, any_query=True, documented=False)
    async def docs(self, call: Call, _: Query) -> Answer:
        return self._page("docs.html", call)

    @Route(
        "GET",
        "/static/<path:name>",
        "Its parts",
        {200: NotJson("*/*")},
        parts=(NAME,),
        any_query=True,
        documented=False,
    )
    async def file(self, call: Call, _: Query, name: str) -> Answer:
        return self._answer(name, call)

    def _page(self, name: str, call: Call) -> Answer:
        answer = self._answer(name, call)
        answer.headers += _PAGE_HEADERS
        return answer

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
