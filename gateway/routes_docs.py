"""The API's documents, made once at the start and served from memory."""

from typing import Any, ClassVar

import msgspec

from gateway.calls import Answer, Call
from gateway.declaration import Route
from gateway.query import Query


class DocsRoutes:
    """Handlers; `openapi` is the document of all routes, these included."""

    section: ClassVar = "Documents"

    def __init__(self, openapi: object, asyncapi: object) -> None:
        self._openapi = msgspec.json.encode(openapi)
        self._asyncapi = msgspec.json.encode(asyncapi)

    @Route("GET", "/api/v1/openapi.json", "This document", {200: dict[str, Any]})
    async def openapi(self, _: Call, __: Query) -> Answer:
        return Answer(200, self._openapi)

    @Route("GET", "/api/v1/asyncapi.json", "The WebSocket's document", {200: dict[str, Any]})
    async def asyncapi(self, _: Call, __: Query) -> Answer:
        return Answer(200, self._asyncapi)
