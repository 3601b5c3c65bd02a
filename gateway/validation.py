"""Order bodies: from JSON to the NewOrder that order-service takes.

Numbers never pass through a float: the fields are kept as they stand in the JSON and their digits are
parsed as text, whether they came as strings or as numbers. The common case is one strict decode, also
of a whole batch; only when that fails is it looked at item by item and field by field, to say all that
is wrong.
"""

from typing import Annotated, Literal, get_args

import msgspec

from common.core.errors import ExchangeError, InvalidOrder, InvalidQuantity, Malformed
from common.core.messages import Market
from common.core.units import atoms_from_text
from exchange.v1 import orders_pb2 as pb
from gateway.markets import MarketTable

BATCH_LIMIT = 1000

# As it stands in the JSON; for the documents, a decimal as a text or a number.
Amount = Annotated[
    msgspec.Raw,
    msgspec.Meta(
        extra_json_schema={
            "anyOf": [
                {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$"},
                {"type": "number", "exclusiveMinimum": 0},
                {"type": "null"},
            ],
            "examples": ["0.001"],
        }
    ),
]

SideName = Literal["BUY", "SELL"]
TypeName = Literal["LIMIT", "MARKET"]
TimeInForceName = Literal["GTC", "IOC", "FOK"]
StpName = Literal["CANCEL_TAKER", "CANCEL_MAKER", "CANCEL_BOTH"]


def _about(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


def _absent() -> msgspec.Raw:
    """The default of an amount."""
    return msgspec.field(default_factory=msgspec.Raw)


class OrderBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An order as API.md has it. A field that is null counts as absent."""

    symbol: Annotated[str, _about("The market.")]
    side: SideName
    type: TypeName
    time_in_force: Annotated[
        TimeInForceName | None, _about("GTC by default; IOC and FOK wait for nothing. MARKET: IOC.")
    ] = None
    post_only: Annotated[bool | None, _about("Rejected if it would trade at once. LIMIT, GTC.")] = None
    price: Annotated[Amount, _about("A multiple of tick_size. LIMIT.")] = _absent()
    quantity: Annotated[Amount, _about("A multiple of lot_size.")] = _absent()
    quote_quantity: Annotated[Amount, _about("What to spend. MARKET BUY, instead of quantity.")] = _absent()
    client_order_id: Annotated[
        str | None, _about("Yours, for ever: the same order again gets the first one's answer.")
    ] = None
    stp: Annotated[
        StpName | None, _about("Which of your own orders goes when two would meet; CANCEL_TAKER by default.")
    ] = None


class PlainBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The same as nearly everybody sends it: all amounts are strings."""

    symbol: str
    side: SideName
    type: TypeName
    time_in_force: TimeInForceName | None = None
    post_only: bool | None = None
    price: str | None = None
    quantity: str | None = None
    quote_quantity: str | None = None
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

_decode_plain = msgspec.json.Decoder(PlainBody).decode
_decode_plain_list = msgspec.json.Decoder(list[PlainBody]).decode
_decode_order = msgspec.json.Decoder(OrderBody).decode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode


def read_order(body: bytes | msgspec.Raw, table: MarketTable) -> pb.NewOrder:
    """The order that a body asks for; raises Malformed, UnknownSymbol or a Refused."""
    try:
        plain = _decode_plain(body)
    except _NOT_JSON:  # Or amounts that are no strings, or fields that do not fit.
        return _read_any(body, table)
    return _to_proto(plain, table)


def _read_any(body: bytes | msgspec.Raw, table: MarketTable) -> pb.NewOrder:
    try:
        order = _decode_order(body)
    except msgspec.ValidationError as error:
        raise _explain(body, error) from None
    except _NOT_JSON:
        raise Malformed("The body is not valid JSON.") from None
    return _to_proto(order, table)


def read_batch(body: bytes, table: MarketTable) -> list[pb.NewOrder | ExchangeError]:
    """Each order of a list, or what is wrong with it, in its place; raises Malformed for the list itself."""
    try:
        plain = _decode_plain_list(body)
    except _NOT_JSON:
        return _read_any_batch(body, table)
    _check_length(len(plain))
    orders: list[pb.NewOrder | ExchangeError] = []
    for order in plain:
        try:
            orders.append(_to_proto(order, table))
        except ExchangeError as error:
            orders.append(error)
    return orders


def _read_any_batch(body: bytes, table: MarketTable) -> list[pb.NewOrder | ExchangeError]:
    """Item by item, so that one that cannot be read spoils no other."""
    try:
        items = _decode_list(body)
    except msgspec.ValidationError:
        raise Malformed("The body must be a list of orders.") from None
    except _NOT_JSON:
        raise Malformed("The body is not valid JSON.") from None
    _check_length(len(items))
    orders: list[pb.NewOrder | ExchangeError] = []
    for item in items:
        try:
            orders.append(read_order(item, table))
        except ExchangeError as error:
            orders.append(error)
    return orders


def _check_length(orders: int) -> None:
    if orders > BATCH_LIMIT:
        raise Malformed(
            f"A batch holds at most {BATCH_LIMIT:,} orders; this one has {orders:,}. None was placed."
        )


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


def _to_proto(order: PlainBody | OrderBody, table: MarketTable) -> pb.NewOrder:
    form = table.form((order.symbol, order.side, order.type, order.time_in_force, order.post_only, order.stp))
    if order.client_order_id == "":
        why = "must not be empty; leave it out instead"
        raise Malformed(f"client_order_id {why}", {"client_order_id": why})
    if isinstance(order, PlainBody):
        price, quantity, quote_quantity = order.price, order.quantity, order.quote_quantity
    else:
        price = _number_text("price", order.price)
        quantity = _number_text("quantity", order.quantity)
        quote_quantity = _number_text("quote_quantity", order.quote_quantity)
    if price is None and order.type == "LIMIT":
        raise InvalidOrder("a LIMIT order needs a price", {"price": "required for a LIMIT order"})
    if quantity is None and quote_quantity is None:
        raise InvalidOrder("an order needs a quantity", {"quantity": "required"})
    quote_atoms = 0 if quote_quantity is None else _quote_atoms(form.market, quote_quantity)
    return form.filled(
        0 if price is None else form.price_ticks(price),
        0 if quantity is None else form.qty_lots(quantity),
        quote_atoms,
        order.client_order_id or "",
    )


def _quote_atoms(market: Market, text: str) -> int:
    try:
        return atoms_from_text(market.quote, text)
    except InvalidQuantity as error:
        why = error.details.get("quantity", error.message)
        raise InvalidQuantity(f"quote_quantity {why}", {"quote_quantity": why}) from None


def _number_text(name: str, raw: msgspec.Raw) -> str | None:
    """The digits of a JSON number or string, as sent; None when the field is absent or null."""
    data = bytes(raw)
    if not data or data == b"null":
        return None
    if data[0] == ord('"'):
        try:
            return _decode_text(data)
        except _NOT_JSON:  # Raw bytes have not been looked at: these are no UTF-8.
            raise Malformed("The body is not valid JSON.") from None
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
