"""The gateway's HTTP application, put together: routes behind the pipeline, Quart to find the route."""

from collections.abc import Awaitable, Callable
from functools import partial
from itertools import chain

from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from common.config import Settings, addresses
from common.core.errors import ExchangeError, Malformed, NotFound
from common.health import Health
from gateway.asgi import Application, Gateway
from gateway.asyncapi import asyncapi
from gateway.auth import Identity
from gateway.batching import OrderBatcher
from gateway.calls import Answer, Call
from gateway.cors import Cors
from gateway.declaration import Handlers, Route, Routed, declared, routes_of
from gateway.door import Door
from gateway.errors import MethodNotAllowed, error_answer, public_errors
from gateway.idempotency import Idempotency
from gateway.limits import Limits
from gateway.markets import Markets
from gateway.openapi import openapi
from gateway.pipeline import Handler, Pipeline
from gateway.proxies import Proxies
from gateway.routes_docs import DocsRoutes
from gateway.routes_ops import OpsRoutes
from gateway.routes_private import PrivateRoutes
from gateway.routes_public import PublicRoutes
from gateway.routes_session import SessionRoutes
from gateway.routes_test import TestRoutes
from gateway.services import Services
from gateway.settled import SettledWaits
from gateway.static_files import StaticFiles

# In the order of the documents; the last ones exist in local mode only.
HANDLERS: tuple[type[Handlers], ...] = (
    PublicRoutes, PrivateRoutes, SessionRoutes, OpsRoutes, DocsRoutes, StaticFiles, TestRoutes,
)  # fmt: skip


def sections(local_mode: bool) -> dict[str, list[Route]]:
    """What a gateway serves, by section."""
    kinds = HANDLERS if local_mode else HANDLERS[:-1]
    return {kind.section: routes_of(kind) for kind in kinds}


def every_route() -> list[Route]:
    """What a gateway in local mode serves."""
    return [route for routes in sections(local_mode=True).values() for route in routes]


def build(
    settings: Settings,
    services: Services,
    markets: Markets,
    batcher: OrderBatcher,
    identity: Identity,
    health: Health,
    limits: Limits,
    idempotency: Idempotency,
    waits: SettledWaits,
    door: Door,
    proxies: Proxies,
) -> Application:
    """The ASGI application. What each request passes, limits and idempotency keys, are stages given here."""
    pipeline = Pipeline(identity, arrivals=[limits.by_address], stages=[limits.by_user, idempotency])
    handlers: list[Handlers] = [
        PublicRoutes(services, markets),
        PrivateRoutes(services, markets, batcher, waits),
        SessionRoutes(services, identity),
        OpsRoutes(services, markets, health),
        DocsRoutes(openapi(sections(settings.local_mode), public_errors()), asyncapi()),
        StaticFiles(),
    ]
    if settings.local_mode:
        handlers.append(TestRoutes(services, markets))
    assert tuple(map(type, handlers)) == HANDLERS[: len(handlers)], "each kind of handlers is in HANDLERS"
    router = Router()
    hot: dict[tuple[str, str], Handler] = {}
    for route, handler in chain.from_iterable(map(declared, handlers)):
        wrap = pipeline.public
        if route.permission is not None:
            wrap = partial(pipeline.private, needs=route.needs)
        router.add(route, handler, wrap)
        if route.hot:
            # Quart's way to a handler costs about as much as all else that a new order costs here.
            hot[route.method, route.path] = wrap(_reading(route, handler, {}))
    gateway = Gateway(router.app, hot, door, body_limit_bytes=settings.body_limit_bytes, proxies=proxies)
    origins = addresses(settings.cors_origins)
    return Cors(gateway, origins) if origins else gateway


class Router:
    """A Quart application whose views run handlers through the pipeline."""

    def __init__(self) -> None:
        self.app = QuartTrio("gateway", static_folder=None)
        self.app.config["MAX_CONTENT_LENGTH"] = None  # asgi.py has read and limited the body already.
        self.app.register_error_handler(HTTPException, self._no_route)
        self._methods: dict[str, set[str]] = {}  # Of paths without variable parts.

    def add(self, route: Route, handler: Routed, wrap: Callable[[Handler], Handler]) -> None:
        if not route.parts:
            methods = self._methods.setdefault(route.path, set())
            methods |= {"GET", "HEAD"} if route.method == "GET" else {route.method}

        async def view(**parts: str) -> Response:
            call: Call = request.scope["call"]  # type: ignore[typeddict-item]  # Put there by asgi.py.
            call.route = route.path
            # Wrapped for each call, because the path's parts differ; the wrapping is four closures.
            return _respond(await wrap(_reading(route, handler, parts))(call))

        self.app.add_url_rule(
            route.path,
            endpoint=f"{route.method} {route.path}",
            view_func=view,
            methods=[route.method],
            provide_automatic_options=False,
        )

    async def _no_route(self, error: HTTPException) -> Response:
        if error.code == 404:
            return _respond(error_answer(NotFound("There is no such path.")))
        if error.code == 405:
            answer = error_answer(MethodNotAllowed())
            # A path of its own is also one of those with variable parts, whose methods do nothing for it.
            allowed = self._methods.get(request.path) or getattr(error, "valid_methods", None) or ()
            answer.headers += ((b"allow", ", ".join(sorted(allowed)).encode("ascii")),)
            return _respond(answer)
        if error.code is not None and 400 <= error.code < 500:
            return _respond(error_answer(Malformed()))
        return _respond(error_answer(ExchangeError("Something went wrong here.")))


def _reading(route: Route, handler: Routed, parts: dict[str, str]) -> Handler:
    """The handler, with its query read when its turn comes: after whoever calls is known."""
    plain = route.read(b"") if route.hot else None  # As nearly all of those come.
    # A signature covers path, query and body as one text: what was moved into a body that nobody reads would
    # make it fit another request.
    bodiless = route.permission is not None and route.body is None

    def read(call: Call) -> Awaitable[Answer]:
        if bodiless and call.body:
            raise Malformed("This request has no body.", {"body": "not wanted"})
        query = plain if plain is not None and not call.query else route.read(call.query)
        return handler(call, query, **parts)

    return read


def _respond(answer: Answer) -> Response:
    response = Response(answer.body, status=answer.status)
    response.headers["content-type"] = answer.content_type.decode("ascii")
    for name, value in answer.headers:
        response.headers[name.decode("ascii")] = value.decode("ascii")
    return response
