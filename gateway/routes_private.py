"""What users may ask about their own orders and money: those of `call.user_id`, whatever the body says."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, cast

from msgspec import Meta

from common.core.errors import (
    DuplicateClientOrderId,
    ExchangeError,
    InsufficientFunds,
    InvalidOrder,
    InvalidPrice,
    InvalidQuantity,
    MarketHalted,
    NoReferencePrice,
    NotionalTooLarge,
    NotionalTooSmall,
    OrderNotFound,
    OrderNotLive,
    UnknownSymbol,
)
from common.core.messages import OrderStatus, Side
from common.core.units import MAX_INT64
from common.rpc import error_from_proto
from common.shown import Account, fill_json
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import types_pb2 as ty
from gateway.batching import OrderBatcher
from gateway.calls import Answer, Call, Claim, json_answer
from gateway.declaration import BEHIND, Route
from gateway.errors import error_json
from gateway.markets import Markets
from gateway.query import CLIENT_ORDER_ID, CURSOR, Choice, Number, Query, Text, Time
from gateway.render import accepted_body, accounts_json, order_json
from gateway.services import WRITE_S, Services
from gateway.settled import DEFAULT_MS, MOST_MS, SettledWaits
from gateway.shapes import Accepted, BatchResults, Canceling, CancelingAll, Fills, Order, Orders
from gateway.validation import BATCH_LIMIT, OrderBody, read_batch, read_order

MOST = 1000
# "" is any status. OPEN means every live order, as API.md says.
_STATUSES = {"": "", **{status.name: status.name for status in OrderStatus}}

ORDER_ID = Text("order_id", "The number of an order", "[0-9]{1,19}", required=True, example="1024")
SYMBOL = Text("symbol", "Of this market alone", example="BTC-USD")
STATUS = Choice("status", "Of this status alone; OPEN: every live order", _STATUSES, "")
BY_CLIENT_ORDER_ID = Text("client_order_id", "Placed under this id", CLIENT_ORDER_ID, example="my-1")
SIDE = Choice("side", "Of this side alone", {"": 0, **{side.name: side.value for side in Side}}, "")
OF_ORDER = Text("order_id", "Of this order alone", "[0-9]{1,19}", example="1024")
FROM = Time("from", "Not before this time")
TO = Time("to", "Before this time")
WAIT = Choice("wait", "settled: answer with the order as it stands then", {"": False, "settled": True}, "")
TIMEOUT_MS = Number("timeout_ms", "How long to wait at most", DEFAULT_MS, MOST_MS)
LIMIT = Number("limit", "How many at most", 100, MOST)
AFTER = Text("cursor", "Where the page before ended, as it says", CURSOR)

PAGES = (
    "A page may be short, or empty: only one whose cursor is null is the last. What is there when the first"
    " page is asked for stands in one of them, once. A cursor goes with its filters."
)

ORDER = {
    "symbol": "BTC-USD", "side": "BUY", "type": "LIMIT", "price": "60000.00", "quantity": "0.001",
    "client_order_id": "my-1",
}  # fmt: skip

# What an order may be refused for.
PLACING: tuple[type[ExchangeError], ...] = (
    UnknownSymbol, DuplicateClientOrderId, InvalidOrder, InvalidPrice, InvalidQuantity, NotionalTooSmall,
    NotionalTooLarge, InsufficientFunds, NoReferencePrice, MarketHalted, *BEHIND,
)  # fmt: skip


class PrivateRoutes:
    """Handlers; each takes an identified call and returns its answer or raises an ExchangeError."""

    section: ClassVar = "Orders and money"

    def __init__(
        self, services: Services, markets: Markets, batcher: OrderBatcher, waits: SettledWaits
    ) -> None:
        self._services = services
        self._waits = waits
        self._markets = markets
        self._batcher = batcher

    @Route(
        "POST",
        "/api/v1/orders",
        "Place an order",
        {202: Accepted, 201: Order, 200: Accepted},
        permission="trade",
        query=(WAIT, TIMEOUT_MS),
        body=OrderBody,
        example=ORDER,
        errors=PLACING,
        hot=True,
        about="202 means durable. 200: the same order was placed before under its client_order_id. 201: it is"
        " settled, for who waits for that; the others then mean that the time was over first.",
    )
    async def place(self, call: Call, query: Query) -> Answer:
        """The hot path."""
        if not query[WAIT]:
            accepted, repeated = await self._place(call)
            return json_answer(accepted_body(accepted), 200 if repeated else 202)
        with self._waits.room(call.user_id):
            accepted, repeated = await self._place(call)
            settled = await self._waits.orders(call, [accepted], query[TIMEOUT_MS])
        if accepted.order_id in settled:
            return json_answer(self._order_json(settled[accepted.order_id]), 201)
        return json_answer(accepted_body(accepted), 200 if repeated else 202)

    async def _place(self, call: Call) -> tuple[pb.Accepted, bool]:
        """What became of the order in the body; True: of an earlier one under its client_order_id."""
        order = read_order(call.body, self._markets.table)
        named_here = call.claim is not None and not order.client_order_id
        if call.claim is not None and named_here:
            order.client_order_id = call.claim.name
        (result,) = await self._submit(call, (order,))
        if result.HasField("error"):
            raise error_from_proto(result.error)
        return result.accepted, result.accepted.repeated and not named_here

    @Route(
        "POST",
        "/api/v1/orders/batch",
        "Place up to 1,000 orders",
        {202: BatchResults, 201: BatchResults},
        permission="trade",
        query=(WAIT, TIMEOUT_MS),
        body=Annotated[list[OrderBody], Meta(max_length=BATCH_LIMIT)],
        example=[ORDER | {"client_order_id": f"my-{n}"} for n in (2, 3)],
        errors=BEHIND,
        hot=True,
        about="An order that cannot be placed is an error in its place. 201: what was placed is settled, for"
        " who waits for that; in a 202, some of it may be.",
    )
    async def place_batch(self, call: Call, query: Query) -> Answer:
        """The valid orders go on in one call; what is wrong with the others stands in their place."""
        if not query[WAIT]:
            return self._batch_answer(call, await self._place_all(call), {}, 202)
        with self._waits.room(call.user_id):
            results = await self._place_all(call)
            accepted = [one for one in results if isinstance(one, pb.Accepted)]
            settled = await self._waits.orders(call, accepted, query[TIMEOUT_MS]) if accepted else {}
        all_settled = all(one.order_id in settled for one in accepted)
        return self._batch_answer(call, results, settled, 201 if all_settled else 202)

    async def _place_all(self, call: Call) -> list[pb.Accepted | ExchangeError]:
        """What became of each order in the body."""
        orders = read_batch(call.body, self._markets.table)
        if call.claim is not None:
            _name(orders, call.claim)
        valid = [order for order in orders if isinstance(order, pb.NewOrder)]
        placed = await self._submit(call, valid) if valid else ()
        each = iter(placed)
        return [order if isinstance(order, ExchangeError) else _outcome(next(each)) for order in orders]

    async def _submit(self, call: Call, orders: Sequence[pb.NewOrder]) -> list[pb.SubmitResult]:
        if call.visit is not None:
            call.visit.queued()
        return await self._batcher.submit(call.user_id, orders, call.request_id)

    def _batch_answer(
        self,
        call: Call,
        outcomes: Sequence[pb.Accepted | ExchangeError],
        settled: Mapping[int, pb.Order],
        status: int,
    ) -> Answer:
        """Under a key, what is a 503 elsewhere makes it worth while to send the same batch again."""
        results: list[object] = [
            {"error": error_json(one)}
            if isinstance(one, ExchangeError)
            else self._order_json(settled[one.order_id])
            if one.order_id in settled
            else accepted_body(one)
            for one in outcomes
        ]
        answer = json_answer(BatchResults(results), status)
        if call.claim is not None:
            answer.final = all(getattr(one, "http_status", 0) < 500 for one in outcomes)
        return answer

    @Route(
        "GET",
        "/api/v1/orders/<order_id>",
        "An order",
        {200: Order},
        permission="read",
        parts=(ORDER_ID,),
        errors=(OrderNotFound, *BEHIND),
    )
    async def get_order(self, call: Call, _: Query, order_id: str) -> Answer:
        request = pb.GetOrderRequest(order_id=_order_id(order_id))
        answer = await self._services.ask(self._services.orders.GetOrder, request, call)
        return json_answer(self._order_json(answer.order))

    @Route(
        "GET",
        "/api/v1/orders",
        "Your orders, newest first",
        {200: Orders},
        permission="read",
        query=(SYMBOL, STATUS, SIDE, BY_CLIENT_ORDER_ID, FROM, TO, LIMIT, AFTER),
        errors=(UnknownSymbol, *BEHIND),
        about=PAGES,
    )
    async def list_orders(self, call: Call, query: Query) -> Answer:
        status = query[STATUS]
        request = pb.ListOrdersRequest(
            symbol=self._symbol(query),
            only_live=status == "OPEN",
            client_order_id=query[BY_CLIENT_ORDER_ID],
            limit=query[LIMIT],
            cursor=query[AFTER],
            side=cast(ty.Side.ValueType, query[SIDE]),
            from_us=query[FROM],
            to_us=query[TO],
        )
        if status not in ("", "OPEN"):
            request.status = cast(ty.OrderStatus.ValueType, OrderStatus[status].value)
        answer = await self._services.ask(self._services.orders.ListOrders, request, call)
        orders = [self._order_json(order) for order in answer.orders]
        return json_answer(Orders(orders, answer.cursor or None))

    @Route(
        "DELETE",
        "/api/v1/orders/<order_id>",
        "Cancel an order",
        {202: Canceling},
        permission="trade",
        parts=(ORDER_ID,),
        errors=(OrderNotFound, OrderNotLive, *BEHIND),
    )
    async def cancel(self, call: Call, _: Query, order_id: str) -> Answer:
        request = pb.CancelRequest(order_id=_order_id(order_id), idempotency_key=_key(call))
        answer = await self._services.ask(self._services.orders.Cancel, request, call, WRITE_S)
        return json_answer(Canceling(str(answer.order_id), answer.sequence), 202)

    @Route(
        "DELETE",
        "/api/v1/orders",
        "Cancel every live order",
        {202: CancelingAll},
        permission="trade",
        query=(SYMBOL,),
        errors=(UnknownSymbol, *BEHIND),
    )
    async def cancel_all(self, call: Call, query: Query) -> Answer:
        request = pb.CancelAllRequest(symbol=self._symbol(query), idempotency_key=_key(call))
        answer = await self._services.ask(self._services.orders.CancelAll, request, call, WRITE_S)
        return json_answer(CancelingAll(answer.canceling), 202)

    @Route(
        "GET",
        "/api/v1/fills",
        "Your fills, newest first",
        {200: Fills},
        permission="read",
        query=(SYMBOL, OF_ORDER, SIDE, FROM, TO, LIMIT, AFTER),
        errors=(UnknownSymbol, *BEHIND),
        about=PAGES,
    )
    async def fills(self, call: Call, query: Query) -> Answer:
        """An order that cannot be has no fills."""
        order_id = int(query[OF_ORDER] or 0)
        if query[OF_ORDER] and not 0 < order_id <= MAX_INT64:
            return json_answer(Fills([], None))
        request = pb.ListFillsRequest(
            symbol=self._symbol(query),
            limit=query[LIMIT],
            cursor=query[AFTER],
            order_id=order_id,
            side=cast(ty.Side.ValueType, query[SIDE]),
            from_us=query[FROM],
            to_us=query[TO],
        )
        answer = await self._services.ask(self._services.orders.ListFills, request, call)
        table = self._markets.table
        fills = [fill_json(table.of_id(fill.market_id), fill) for fill in answer.fills]
        return json_answer(Fills(fills, answer.cursor or None))

    @Route(
        "GET",
        "/api/v1/accounts",
        "What you have of each asset",
        {200: list[Account]},
        permission="read",
        errors=BEHIND,
    )
    async def accounts(self, call: Call, _: Query) -> Answer:
        answer = await self._services.ask(self._services.orders.ListAccounts, pb.ListAccountsRequest(), call)
        return json_answer(accounts_json(self._markets.table.assets, answer.accounts))

    def _symbol(self, query: Query) -> str:
        """The symbol, known, or "" for every market."""
        symbol = query[SYMBOL]
        return self._markets.table.market(symbol).symbol if symbol else ""

    def _order_json(self, order: pb.Order) -> Order:
        return order_json(self._markets.table.of_id(order.market_id), order)


def _outcome(result: pb.SubmitResult) -> pb.Accepted | ExchangeError:
    return error_from_proto(result.error) if result.HasField("error") else result.accepted


def _name(orders: Sequence[pb.NewOrder | ExchangeError], claim: Claim) -> None:
    """Orders without a name get one by their place, so that the same batch again places none twice."""
    for index, order in enumerate(orders):
        if isinstance(order, pb.NewOrder) and not order.client_order_id:
            order.client_order_id = claim.name_at(index)


def _key(call: Call) -> str:
    return call.claim.key if call.claim is not None else ""


def _order_id(text: str) -> int:
    """An order's number; what cannot be one belongs to no order. Raises OrderNotFound."""
    try:
        order_id = int(ORDER_ID.read(text))
    except ValueError:
        raise OrderNotFound() from None
    if not 0 < order_id <= MAX_INT64:
        raise OrderNotFound()
    return order_id
