"""The API as an OpenAPI 3.1 document, made from what the routes declare. Pure.

Errors stand in each operation by their status, with the codes that it may have there; `x-errors` lists
every code once, with what to do about it.
"""

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from itertools import groupby
from typing import Any

import msgspec

from common.core.errors import ExchangeError
from gateway.declaration import NotJson, Route
from gateway.query import Parameter
from gateway.shapes import Failed

Json = dict[str, Any]
Errors = Iterable[type[ExchangeError]]

TITLE = "exchange"
VERSION = "1"
ABOUT = """\
Decimals are strings, and may be numbers in requests; times are RFC 3339 in UTC; ids are strings. Every \
answer has an X-Request-Id, of your choice if you send one. A client that got no answer sends the same \
order again, under the same `client_order_id`, and gets the truth, once."""

_REFERENCE = "#/components/schemas/{name}"
_SCHEMES: Json = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
    "timestamp": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Timestamp",
        "description": "Unix time in milliseconds.",
    },
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Signature",
        "description": "HMAC-SHA256 (hexadecimal) under the key's secret, or Ed25519, of"
        " timestamp + METHOD + path?query + body.",
    },
}
_EITHER: list[Json] = [{"bearer": []}, {"key": [], "timestamp": [], "signature": []}]
_RETRIED = (408, 409, 429, 503)  # These say when to come again, if they know.
_PART = re.compile(r"<(?:\w+:)?(\w+)>")


def openapi(sections: Mapping[str, Iterable[Route]], errors: Errors) -> Json:
    """The document of these routes, which are grouped by section."""
    shown = {
        section: found
        for section, routes in sections.items()
        if (found := [route for route in routes if route.documented])
    }
    schemas = _Schemas(route for routes in shown.values() for route in routes)
    paths: dict[str, Json] = {}
    for section, routes in shown.items():
        for route in routes:
            path = paths.setdefault(_PART.sub(r"{\1}", route.path), {})
            path[route.method.lower()] = _operation(route, section, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": VERSION, "description": ABOUT},
        "servers": [{"url": "/"}],
        "tags": [{"name": section} for section in shown],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": {
                ".".join(codes): _refusal(status, codes)
                for routes in shown.values()
                for route in routes
                for status, codes in _codes(route)
            },
            "headers": _HEADERS | _SOMETIMES,
            "securitySchemes": _SCHEMES,
        },
        "x-errors": error_table(errors),
    }


def error_table(errors: Errors) -> list[Json]:
    """Every code once, by status: what it means, and what to do about it."""
    return [
        {
            "code": error.code,
            "status": error.http_status,
            "meaning": (error.__doc__ or "").split("\n")[0],
            "remedy": error.remedy,
        }
        for error in sorted(errors, key=lambda error: (error.http_status, error.code))
    ]


class _Schemas:
    """The JSON Schemas of everything that routes take and answer."""

    def __init__(self, routes: Iterable[Route]) -> None:
        types = {Failed: None} | {type_: None for route in routes for type_ in _types(route)}
        found, self.components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
        self._by_type: dict[object, Json] = dict(zip(types, found, strict=True))

    def of(self, type_: object) -> Json:
        return self._by_type[type_]


def _types(route: Route) -> Iterable[Any]:
    if route.body is not None:
        yield route.body
    yield from (type_ for type_ in route.answers.values() if not isinstance(type_, NotJson))


def _operation(route: Route, section: str, schemas: _Schemas) -> Json:
    answers = {
        str(status): _answer(status, type_, schemas, keyed=route.keyed)
        for status, type_ in route.answers.items()
    }
    for status, codes in _codes(route):
        answers.setdefault(str(status), {"$ref": f"#/components/responses/{'.'.join(codes)}"})
    operation: Json = {
        "operationId": route.operation,
        "summary": route.summary,
        "tags": [section],
        "security": [] if route.permission is None else _EITHER,
        "responses": answers,
    }
    if route.about:
        operation["description"] = route.about
    if route.permission is not None:
        operation["x-permission"] = route.permission
    if parameters := _parameters(route):
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = _body(route, schemas)
    return operation


def _body(route: Route, schemas: _Schemas) -> Json:
    content: Json = {"schema": schemas.of(route.body)}
    if route.example is None:  # Nothing is wanted; {} may be sent.
        return {"required": False, "content": {"application/json": content}}
    return {"required": True, "content": {"application/json": content | {"example": route.example}}}


def _codes(route: Route) -> list[tuple[int, list[str]]]:
    """What the route may refuse with: each status, and its codes."""
    by_status = groupby(route.refusals, key=lambda error: error.http_status)
    return [(status, sorted(error.code for error in errors)) for status, errors in by_status]


def _parameters(route: Route) -> list[Json]:
    found = [_parameter(part, "path") for part in route.parts]
    found += [_parameter(one, "query") for one in route.query]
    return [*found, _KEY] if route.keyed else found


def _parameter(parameter: Parameter[Any], place: str) -> Json:
    shown: Json = {
        "name": parameter.name,
        "in": place,
        "description": parameter.about,
        "required": parameter.required,
        "schema": parameter.schema,
    }
    return shown | {"example": parameter.example} if parameter.example else shown


def _answer(status: int, type_: object, schemas: _Schemas, *, keyed: bool) -> Json:
    if isinstance(type_, NotJson):
        content: Json = {type_.media_type: {"schema": {"type": "string"}}}
    else:
        content = {"application/json": {"schema": schemas.of(type_)}}
    headers = _headers("Idempotent-Replay") if keyed else _headers()
    return {"description": HTTPStatus(status).phrase, "headers": headers, "content": content}


def _refusal(status: int, codes: list[str]) -> Json:
    narrowed = {"properties": {"error": {"properties": {"code": {"enum": codes}}}}}
    schema = {"allOf": [{"$ref": _REFERENCE.format(name="Failed")}, narrowed]}
    headers = _headers("Retry-After") if status in _RETRIED else _headers()
    return {
        "description": ", ".join(codes),
        "headers": headers,
        "content": {"application/json": {"schema": schema}},
    }


def _count(about: str) -> Json:
    return {"description": about, "schema": {"type": "integer"}}


_HEADERS: Json = {
    "X-Request-Id": {
        "description": "Yours, if it is 1 to 64 of A-Z a-z 0-9 . _ : -, else a new one; the logs know it.",
        "required": True,
        "schema": {"type": "string"},
    },
    "RateLimit-Limit": _count("What the tightest window holds."),
    "RateLimit-Used": _count("How much of it is used."),
    "RateLimit-Remaining": _count("How much is left."),
    "RateLimit-Reset": _count("Seconds until all of it is free again."),
}
_SOMETIMES = {
    "Retry-After": _count("Seconds."),
    "Idempotent-Replay": {
        "description": "`true`: the first answer under this Idempotency-Key, again.",
        "schema": {"type": "string", "enum": ["true"]},
    },
}
_KEY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "For 24 hours the same request under it is done once, and answered alike.",
    "required": False,
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
}


def _headers(*more: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (*_HEADERS, *more)}
