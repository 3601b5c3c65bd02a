"""What users may ask about their own orders and money: those of `call.user_id`, whatever the body says."""

import re
from typing import cast

from common.core.errors import ExchangeError, OrderNotFound
from common.core.messages import OrderStatus
from common.core.units import MAX_INT64
from common.rpc import error_from_proto
from common.shown import fill_json
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import types_pb2 as ty
from gateway.batching import OrderBatcher
from gateway.calls import Answer, Call, json_answer
from gateway.errors import error_json
from gateway.markets import Markets
from gateway.query import CLIENT_ORDER_ID, CURSOR, Query
from gateway.render import accepted_json, accounts_json, order_json
from gateway.services import WRITE_S, Services
from gateway.validation import read_batch, read_order

MOST = 1000
_ID = re.compile(r"[0-9]{1,19}")
# "" is any status. OPEN means every live order, as API.md says.
_STATUSES = {"": "", **{status.name: status.name for status in OrderStatus}}


class PrivateRoutes:
    """Handlers; each takes an identified call and returns its answer or raises an ExchangeError."""

    def __init__(self, services: Services, markets: Markets, batcher: OrderBatcher) -> None:
        self._services = services
        self._markets = markets
        self._batcher = batcher

    async def place(self, call: Call) -> Answer:
        """POST /orders: the hot path."""
        Query(call.query)
        order = read_order(call.body, self._markets.table)
        (result,) = await self._batcher.submit(call.user_id, (order,), call.request_id)
        if result.HasField("error"):
            raise error_from_proto(result.error)
        return json_answer(accepted_json(result.accepted), 200 if result.accepted.repeated else 202)

    async def place_batch(self, call: Call) -> Answer:
        """The valid orders go on in one call; what is wrong with the others stands in their place."""
        Query(call.query)
        orders = read_batch(call.body, self._markets.table)
        valid = [order for order in orders if isinstance(order, pb.NewOrder)]
        placed = iter(await self._batcher.submit(call.user_id, valid, call.request_id)) if valid else iter(())
        results = [
            {"error": error_json(order)} if isinstance(order, ExchangeError) else _result_json(next(placed))
            for order in orders
        ]
        return json_answer({"results": results}, 202)

    async def get_order(self, call: Call, order_id: str) -> Answer:
        Query(call.query)
        request = pb.GetOrderRequest(order_id=_order_id(order_id))
        answer = await self._services.ask(self._services.orders.GetOrder, request, call)
        return json_answer(self._order_json(answer.order))

    async def list_orders(self, call: Call) -> Answer:
        query = Query(call.query, "symbol", "status", "client_order_id", "limit", "cursor")
        status = query.choice("status", _STATUSES, "")
        request = pb.ListOrdersRequest(
            symbol=self._symbol(query),
            only_live=status == "OPEN",
            client_order_id=query.text("client_order_id", CLIENT_ORDER_ID),
            limit=query.number("limit", 100, MOST),
            cursor=query.text("cursor", CURSOR),
        )
        if status not in ("", "OPEN"):
            request.status = cast(ty.OrderStatus.ValueType, OrderStatus[status].value)
        answer = await self._services.ask(self._services.orders.ListOrders, request, call)
        orders = [self._order_json(order) for order in answer.orders]
        return json_answer({"orders": orders, "cursor": answer.cursor or None})

    async def cancel(self, call: Call, order_id: str) -> Answer:
        Query(call.query)
        request = pb.CancelRequest(order_id=_order_id(order_id))
        answer = await self._services.ask(self._services.orders.Cancel, request, call, WRITE_S)
        return json_answer({"order_id": str(answer.order_id), "sequence": answer.sequence}, 202)

    async def cancel_all(self, call: Call) -> Answer:
        request = pb.CancelAllRequest(symbol=self._symbol(Query(call.query, "symbol")))
        answer = await self._services.ask(self._services.orders.CancelAll, request, call, WRITE_S)
        return json_answer({"canceling": answer.canceling}, 202)

    async def fills(self, call: Call) -> Answer:
        query = Query(call.query, "symbol", "limit", "cursor")
        request = pb.ListFillsRequest(
            symbol=self._symbol(query),
            limit=query.number("limit", 100, MOST),
            cursor=query.text("cursor", CURSOR),
        )
        answer = await self._services.ask(self._services.orders.ListFills, request, call)
        table = self._markets.table
        return json_answer(
            {
                "fills": [fill_json(table.of_id(fill.market_id), fill) for fill in answer.fills],
                "cursor": answer.cursor or None,
            }
        )

    async def accounts(self, call: Call) -> Answer:
        Query(call.query)
        answer = await self._services.ask(self._services.orders.ListAccounts, pb.ListAccountsRequest(), call)
        return json_answer(accounts_json(self._markets.table.assets, answer.accounts))

    def _symbol(self, query: Query) -> str:
        """The symbol, known, or "" for every market."""
        symbol = query.text("symbol")
        return self._markets.table.market(symbol).symbol if symbol else ""

    def _order_json(self, order: pb.Order) -> dict[str, object]:
        return order_json(self._markets.table.of_id(order.market_id), order)


def _result_json(result: pb.SubmitResult) -> dict[str, object]:
    if result.HasField("error"):
        return {"error": error_json(error_from_proto(result.error))}
    return accepted_json(result.accepted)


def _order_id(text: str) -> int:
    """An order's number; what cannot be one belongs to no order. Raises OrderNotFound."""
    if _ID.fullmatch(text) is None or not 0 < int(text) <= MAX_INT64:
        raise OrderNotFound()
    return int(text)
