"""Liveness, readiness and metrics, on the public port."""

from common import health
from gateway.calls import Answer, Call
from gateway.markets import Markets
from gateway.services import Services


class OpsRoutes:
    """Handlers; ready means that an order would be accepted now."""

    def __init__(self, services: Services, markets: Markets, own: health.Health) -> None:
        self._services = services
        self._markets = markets
        self._health = own

    async def healthz(self, _: Call) -> Answer:
        return self._answer("/healthz")

    async def metrics(self, _: Call) -> Answer:
        return self._answer("/metrics")

    async def readyz(self, _: Call) -> Answer:
        problem = await self._services.orders_problem()
        self._health.set("order-service", not problem, problem)
        known = self._markets.known
        self._health.set("markets", known, "" if known else "no list of the markets has been received yet")
        return self._answer("/readyz")

    def _answer(self, path: str) -> Answer:
        told = health.answer(self._health, path)
        return Answer(told.status, told.body, told.content_type.encode("ascii"))
