"""Test users and test money; these routes exist in local mode only."""

from exchange.v1 import internal_pb2 as internal
from gateway.calls import Answer, Call, json_answer
from gateway.markets import Markets
from gateway.query import Query
from gateway.render import accounts_json
from gateway.services import WRITE_S, Services
from gateway.validation import read_nothing


class TestRoutes:
    """Handlers; each takes a call and returns its answer or raises an ExchangeError."""

    __test__ = False  # For pytest: not a test.

    def __init__(self, services: Services, markets: Markets) -> None:
        self._services = services
        self._markets = markets

    async def join(self, call: Call) -> Answer:
        """A new user. There are no keys for signed requests yet, so those two are null."""
        Query(call.query)
        read_nothing(call.body)
        assets = self._markets.table.assets
        answer = await self._services.ask(self._services.internal.Join, internal.JoinRequest(), call, WRITE_S)
        user = {"user_id": str(answer.user_id), "token": answer.token, "api_key": None, "api_secret": None}
        return json_answer(user | {"balances": accounts_json(assets, answer.accounts)}, 201)

    async def recharge(self, call: Call) -> Answer:
        Query(call.query)
        read_nothing(call.body)
        request = internal.RechargeRequest(user_id=call.user_id)
        answer = await self._services.ask(self._services.internal.Recharge, request, call, WRITE_S)
        return json_answer({"balances": accounts_json(self._markets.table.assets, answer.accounts)})
