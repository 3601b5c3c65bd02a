"""The gateway's HTTP application, put together: routes behind the pipeline, Quart to find the route."""

from collections.abc import Awaitable, Callable
from typing import Any

from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from common.config import Settings
from common.core.errors import ExchangeError, Malformed, NotFound
from common.health import Health
from gateway.asgi import Gateway
from gateway.auth import Identify
from gateway.batching import OrderBatcher
from gateway.calls import Answer, Call
from gateway.errors import MethodNotAllowed, error_answer
from gateway.markets import Markets
from gateway.pipeline import Pipeline
from gateway.routes_ops import OpsRoutes
from gateway.routes_private import PrivateRoutes
from gateway.routes_public import PublicRoutes
from gateway.routes_test import TestRoutes
from gateway.services import Services
from gateway.static_files import StaticFiles

Routed = Callable[..., Awaitable[Answer]]  # A call, and the variable parts of its path.

ORDERS = "/api/v1/orders"


def build(
    settings: Settings,
    services: Services,
    markets: Markets,
    batcher: OrderBatcher,
    identify: Identify,
    health: Health,
) -> Gateway:
    """The ASGI application. Limits and idempotency keys, when they come, are stages given here."""
    pipeline = Pipeline(identify)
    own = PrivateRoutes(services, markets, batcher)
    router = Router(pipeline)
    _add_public(router, PublicRoutes(services, markets), OpsRoutes(services, markets, health), StaticFiles())
    _add_private(router, own)
    if settings.local_mode:
        test = TestRoutes(services, markets)
        router.public("POST", "/api/v1/test/join", test.join)
        router.private("POST", "/api/v1/test/recharge", test.recharge)
    # Quart's way to a handler costs about as much as all else that a new order costs here.
    hot = {("POST", ORDERS): pipeline.private(own.place)}
    return Gateway(router.app, hot, body_limit_bytes=settings.body_limit_bytes)


def _add_public(router: "Router", public: PublicRoutes, ops: OpsRoutes, static: StaticFiles) -> None:
    router.public("GET", "/api/v1/markets", public.markets)
    router.public("GET", "/api/v1/orderbook", public.orderbook)
    router.public("GET", "/api/v1/trades", public.trades)
    router.public("GET", "/api/v1/klines", public.klines)
    router.public("GET", "/api/v1/ticker", public.ticker)
    router.public("GET", "/api/v1/time", public.time)
    router.public("GET", "/healthz", ops.healthz)
    router.public("GET", "/readyz", ops.readyz)
    router.public("GET", "/metrics", ops.metrics)
    router.public("GET", "/", static.page)
    router.public("GET", "/static/<path:name>", static.file)


def _add_private(router: "Router", own: PrivateRoutes) -> None:
    router.private("POST", ORDERS, own.place)  # For 405 on other methods; served by the hot route.
    router.private("POST", ORDERS + "/batch", own.place_batch)
    router.private("GET", ORDERS, own.list_orders)
    router.private("DELETE", ORDERS, own.cancel_all)
    router.private("GET", ORDERS + "/<order_id>", own.get_order)
    router.private("DELETE", ORDERS + "/<order_id>", own.cancel)
    router.private("GET", "/api/v1/fills", own.fills)
    router.private("GET", "/api/v1/accounts", own.accounts)


class Router:
    """A Quart application whose views run handlers through the pipeline."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.app = QuartTrio("gateway", static_folder=None)
        self.app.config["MAX_CONTENT_LENGTH"] = None  # asgi.py has read and limited the body already.
        self.app.register_error_handler(HTTPException, _no_route)

    def public(self, method: str, rule: str, handler: Routed) -> None:
        self._add(method, rule, handler, self._pipeline.public)

    def private(self, method: str, rule: str, handler: Routed) -> None:
        self._add(method, rule, handler, self._pipeline.private)

    def _add(self, method: str, rule: str, handler: Routed, wrap: Callable[..., Any]) -> None:
        async def view(**parts: str) -> Response:
            call: Call = request.scope["call"]  # type: ignore[typeddict-item]  # Put there by asgi.py.
            call.route = rule
            # Wrapped for each call, because the path's parts differ; the wrapping is four closures.
            return _respond(await wrap(lambda same: handler(same, **parts))(call))

        self.app.add_url_rule(
            rule,
            endpoint=f"{method} {rule}",
            view_func=view,
            methods=[method],
            provide_automatic_options=False,
        )


async def _no_route(error: HTTPException) -> Response:
    if error.code == 404:
        return _respond(error_answer(NotFound("There is no such path.")))
    if error.code == 405:
        answer = error_answer(MethodNotAllowed())
        allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
        answer.headers += ((b"allow", allowed.encode("ascii")),)
        return _respond(answer)
    if error.code is not None and 400 <= error.code < 500:
        return _respond(error_answer(Malformed()))
    return _respond(error_answer(ExchangeError("Something went wrong here.")))


def _respond(answer: Answer) -> Response:
    response = Response(answer.body, status=answer.status)
    response.headers["content-type"] = answer.content_type.decode("ascii")
    for name, value in answer.headers:
        response.headers[name.decode("ascii")] = value.decode("ascii")
    return response
