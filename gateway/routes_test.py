"""Test users and test money; these routes exist in local mode only."""

from typing import ClassVar

from exchange.v1 import internal_pb2 as internal
from gateway.calls import Answer, Call, json_answer
from gateway.declaration import BEHIND, Route
from gateway.markets import Markets
from gateway.query import Query
from gateway.render import accounts_json
from gateway.services import WRITE_S, Services
from gateway.shapes import Balances, Joined
from gateway.validation import EmptyBody, read_nothing


class TestRoutes:
    """Handlers; each takes a call and returns its answer or raises an ExchangeError."""

    section: ClassVar = "Test money"

    __test__ = False  # For pytest: not a test.

    def __init__(self, services: Services, markets: Markets) -> None:
        self._services = services
        self._markets = markets

    @Route(
        "POST",
        "/api/v1/test/join",
        "A new user with test money",
        {201: Joined},
        body=EmptyBody,
        errors=BEHIND,
    )
    async def join(self, call: Call, _: Query) -> Answer:
        """The API key signs with HMAC-SHA256; it is null where order-service has no master key."""
        read_nothing(call.body)
        answer = await self._services.ask(self._services.internal.Join, internal.JoinRequest(), call, WRITE_S)
        balances = accounts_json(self._markets.table.assets, answer.accounts)
        key = answer.api_key or None, answer.api_secret or None
        joined = Joined(str(answer.user_id), answer.token, *key, balances)
        return json_answer(joined, 201)

    @Route(
        "POST",
        "/api/v1/test/recharge",
        "Test money again",
        {200: Balances},
        permission="trade",
        body=EmptyBody,
        errors=BEHIND,
    )
    async def recharge(self, call: Call, _: Query) -> Answer:
        read_nothing(call.body)
        request = internal.RechargeRequest(
            user_id=call.user_id, reference=call.claim.name if call.claim is not None else ""
        )
        answer = await self._services.ask(self._services.internal.Recharge, request, call, WRITE_S)
        return json_answer(Balances(accounts_json(self._markets.table.assets, answer.accounts)))
