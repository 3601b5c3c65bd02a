"""Order bodies: from JSON to the NewOrder that order-service takes.

Numbers never pass through a float: the fields are kept as they stand in the JSON and their digits are
parsed by `common.core.units`, whether they came as strings or as numbers. The common case is one
strict decode; only when that fails is the body looked at field by field, to say all that is wrong.
"""

from typing import Literal, cast, get_args

import msgspec

from common.core.errors import ExchangeError, InvalidOrder, InvalidQuantity, Malformed
from common.core.messages import Market, OrderType, SelfTradePrevention, Side, TimeInForce
from common.core.orders import check_order
from common.core.units import atoms_from_text, price_from_text, qty_from_text
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import types_pb2 as ty
from gateway.markets import MarketTable

BATCH_LIMIT = 1000

_ABSENT = msgspec.Raw(b"")

SideName = Literal["BUY", "SELL"]
TypeName = Literal["LIMIT", "MARKET"]
TimeInForceName = Literal["GTC", "IOC", "FOK"]
StpName = Literal["CANCEL_TAKER", "CANCEL_MAKER", "CANCEL_BOTH"]


class OrderBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An order as API.md has it. A field that is null counts as absent."""

    symbol: str
    side: SideName
    type: TypeName
    time_in_force: TimeInForceName | None = None
    post_only: bool | None = None
    price: msgspec.Raw = _ABSENT
    quantity: msgspec.Raw = _ABSENT
    quote_quantity: msgspec.Raw = _ABSENT
    client_order_id: str | None = None
    stp: StpName | None = None


class EmptyBody(msgspec.Struct, forbid_unknown_fields=True):
    """For requests that need no body, and may send {}."""


_TYPES: dict[str, object] = {
    "symbol": str,
    "side": SideName,
    "type": TypeName,
    "time_in_force": TimeInForceName | None,
    "post_only": bool | None,
    "client_order_id": str | None,
    "stp": StpName | None,
}
_AMOUNTS = ("price", "quantity", "quote_quantity")
_REQUIRED = ("symbol", "side", "type")
_CHOICES: dict[str, tuple[str, ...]] = {
    "side": get_args(SideName),
    "type": get_args(TypeName),
    "time_in_force": get_args(TimeInForceName),
    "stp": get_args(StpName),
}
_EXPECTED = {"post_only": "must be true or false"}

_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_decode_order = msgspec.json.Decoder(OrderBody).decode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode


def read_order(body: bytes | msgspec.Raw, table: MarketTable) -> pb.NewOrder:
    """The order that a body asks for; raises Malformed, UnknownSymbol or a Refused."""
    try:
        order = _decode_order(body)
    except msgspec.ValidationError as error:
        raise _explain(body, error) from None
    except _NOT_JSON:
        raise Malformed("The body is not valid JSON.") from None
    return _to_proto(order, table.market(order.symbol))


def read_batch(body: bytes, table: MarketTable) -> list[pb.NewOrder | ExchangeError]:
    """Each order of a list, or what is wrong with it, in its place; raises Malformed for the list itself."""
    try:
        items = _decode_list(body)
    except msgspec.ValidationError:
        raise Malformed("The body must be a list of orders.") from None
    except _NOT_JSON:
        raise Malformed("The body is not valid JSON.") from None
    if len(items) > BATCH_LIMIT:
        raise Malformed(
            f"A batch holds at most {BATCH_LIMIT:,} orders; this one has {len(items):,}. None was placed."
        )
    orders: list[pb.NewOrder | ExchangeError] = []
    for item in items:
        try:
            orders.append(read_order(item, table))
        except ExchangeError as error:
            orders.append(error)
    return orders


def read_nothing(body: bytes) -> None:
    """See that a request which takes no fields has none; raises Malformed."""
    if not body.strip():
        return
    try:
        msgspec.json.decode(body, type=EmptyBody)
    except msgspec.ValidationError:
        wrong = {name[:64]: _unknown(name) for name in _fields(body)}
        raise Malformed("The body has unknown fields.", wrong) from None
    except _NOT_JSON:
        raise Malformed("The body is not valid JSON.") from None


def _to_proto(order: OrderBody, market: Market) -> pb.NewOrder:
    side, type_ = Side[order.side], OrderType[order.type]
    default = "GTC" if type_ is OrderType.LIMIT else "IOC"
    time_in_force = TimeInForce[order.time_in_force or default]
    stp = SelfTradePrevention[order.stp or "CANCEL_TAKER"]
    post_only = order.post_only or False
    if order.client_order_id == "":
        why = "must not be empty; leave it out instead"
        raise Malformed(f"client_order_id {why}", {"client_order_id": why})
    client_order_id = order.client_order_id or ""
    price_ticks, qty_lots, quote_atoms = _amounts(order, market)
    check_order(
        market, side=side, type=type_, time_in_force=time_in_force, post_only=post_only,
        price_ticks=price_ticks, qty_lots=qty_lots, quote_atoms=quote_atoms, client_order_id=client_order_id,
    )  # fmt: skip
    return pb.NewOrder(
        symbol=market.symbol,
        side=cast(ty.Side.ValueType, side.value),
        type=cast(ty.OrderType.ValueType, type_.value),
        time_in_force=cast(ty.TimeInForce.ValueType, time_in_force.value),
        post_only=post_only,
        stp=cast(ty.SelfTradePrevention.ValueType, stp.value),
        price_ticks=price_ticks,
        qty_lots=qty_lots,
        quote_atoms=quote_atoms,
        client_order_id=client_order_id,
    )


def _amounts(order: OrderBody, market: Market) -> tuple[int, int, int]:
    """(price_ticks, qty_lots, quote_atoms), 0 for what is absent."""
    price = _number_text("price", order.price)
    quantity = _number_text("quantity", order.quantity)
    quote_quantity = _number_text("quote_quantity", order.quote_quantity)
    if order.type == "LIMIT" and price is None:
        raise InvalidOrder("a LIMIT order needs a price", {"price": "required for a LIMIT order"})
    if quantity is None and quote_quantity is None:
        raise InvalidOrder("an order needs a quantity", {"quantity": "required"})
    quote_atoms = 0
    if quote_quantity is not None:
        try:
            quote_atoms = atoms_from_text(market.quote, quote_quantity)
        except InvalidQuantity as error:
            why = error.details.get("quantity", error.message)
            raise InvalidQuantity(f"quote_quantity {why}", {"quote_quantity": why}) from None
    return (
        0 if price is None else price_from_text(market, price),
        0 if quantity is None else qty_from_text(market, quantity),
        quote_atoms,
    )


def _number_text(name: str, raw: msgspec.Raw) -> str | None:
    """The digits of a JSON number or string, as sent; None when the field is absent or null."""
    data = bytes(raw)
    if not data or data == b"null":
        return None
    if data[0] == ord('"'):
        return _decode_text(data)
    if data[0] in b"-0123456789":
        return data.decode("ascii")
    why = "must be a decimal number, as a string or a number"
    raise Malformed(f"{name} {why}", {name: why})


def _unknown(name: str) -> str:
    if name == "user_id":
        return "not accepted: the user is always the one authenticated"
    return "unknown field"


def _explain(body: bytes | msgspec.Raw, error: msgspec.ValidationError) -> Malformed:
    """What is wrong with each field of a body that did not fit."""
    fields = _fields(body)
    wrong = {name[:64]: _unknown(name) for name in fields if name not in _TYPES and name not in _AMOUNTS}
    wrong |= {name: "required" for name in _REQUIRED if name not in fields}
    for name, type_ in _TYPES.items():
        if name in fields and not _fits(fields[name], type_):
            choices = _CHOICES.get(name)
            expected = _EXPECTED.get(name, "must be a string")
            wrong[name] = "must be one of " + ", ".join(choices) if choices else expected
    return Malformed("The order has wrong fields." if wrong else str(error), wrong)


def _fields(body: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Raises Malformed for what is no object, and for what a strict decode did not get to see."""
    try:
        return _decode_object(body)
    except msgspec.ValidationError:
        raise Malformed("The body must be a JSON object.") from None
    except _NOT_JSON:
        raise Malformed("The body is not valid JSON.") from None


def _fits(raw: msgspec.Raw, type_: object) -> bool:
    try:
        msgspec.json.decode(raw, type=type_)
    except _NOT_JSON:
        return False
    return True
