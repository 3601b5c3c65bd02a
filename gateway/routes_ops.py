"""Liveness, readiness and metrics, on the public port."""

from typing import ClassVar

from common import health
from gateway.calls import Answer, Call
from gateway.declaration import NotJson, Route
from gateway.markets import Markets
from gateway.query import Query
from gateway.services import Services
from gateway.shapes import Alive, Readiness


class OpsRoutes:
    """Handlers; ready means that an order would be accepted now."""

    section: ClassVar = "Operation"

    def __init__(self, services: Services, markets: Markets, own: health.Health) -> None:
        self._services = services
        self._markets = markets
        self._health = own

    @Route("GET", "/healthz", "Whether the gateway runs", {200: Alive}, any_query=True)
    async def healthz(self, _: Call, __: Query) -> Answer:
        return self._answer("/healthz")

    @Route(
        "GET", "/metrics", "Metrics, as Prometheus reads them", {200: NotJson("text/plain")}, any_query=True
    )
    async def metrics(self, _: Call, __: Query) -> Answer:
        return self._answer("/metrics")

    @Route(
        "GET",
        "/readyz",
        "Whether an order would be accepted now",
        {200: Readiness, 503: Readiness},
        any_query=True,
    )
    async def readyz(self, _: Call, __: Query) -> Answer:
        problem = await self._services.orders_problem()
        self._health.set("order-service", not problem, problem)
        known = self._markets.known
        self._health.set("markets", known, "" if known else "no list of the markets has been received yet")
        return self._answer("/readyz")

    def _answer(self, path: str) -> Answer:
        told = health.answer(self._health, path)
        return Answer(told.status, told.body, told.content_type.encode("ascii"))
