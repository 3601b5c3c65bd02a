"""What the clients asked for and what they were told: all that the oracle knows.

Amounts are atoms, 10**-8 of a unit, in every asset, read from the decimal texts of the public API by this
file's own arithmetic. Nothing here looks at the exchange.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

SCALE = 8
UNIT = 10**SCALE
MOST_KEPT = 50

LIVE = frozenset({"ACCEPTED", "OPEN", "PARTIALLY_FILLED"})
ENDED = frozenset({"FILLED", "CANCELED", "REJECTED", "EXPIRED"})

Json = dict[str, Any]


def atoms(text: str | None) -> int:
    """Atoms of a decimal text; absent is 0."""
    if not text:
        return 0
    whole, _, fraction = text.partition(".")
    assert len(fraction) <= SCALE, text
    return int(whole + fraction.ljust(SCALE, "0"))


def decimal(amount: int) -> str:
    """The text of atoms."""
    whole, fraction = divmod(amount, UNIT)
    return f"{whole}.{fraction:0{SCALE}d}".rstrip("0").rstrip(".")


class Want(NamedTuple):
    """An order as its user wants it; prices and amounts in atoms, 0 where there is none."""

    symbol: str
    side: str
    type: str = "LIMIT"
    time_in_force: str = "GTC"
    post_only: bool = False
    price: int = 0
    quantity: int = 0
    quote_quantity: int = 0
    stp: str = "CANCEL_TAKER"

    def body(self, client_order_id: str) -> Json:
        """As API.md has it."""
        body: Json = {
            "symbol": self.symbol,
            "side": self.side,
            "type": self.type,
            "time_in_force": self.time_in_force,
            "post_only": self.post_only,
            "stp": self.stp,
            "client_order_id": client_order_id,
        }
        for name in ("price", "quantity", "quote_quantity"):
            if amount := getattr(self, name):
                body[name] = decimal(amount)
        return body


class Accepted(NamedTuple):
    """`created_at` as the text that it was told in."""

    order_id: str
    sequence: int
    created_at: str


class Refused(NamedTuple):
    status: int
    code: str


@dataclass(slots=True)
class Sent:
    """One order under its client_order_id. `asked_again`: sent once more after an error or no answer."""

    client_order_id: str
    want: Want
    asked_again: int = 0
    answer: Accepted | Refused | None = None


class Fill(NamedTuple):
    """One side of a trade; amounts in atoms. `time` as the text that it was told in."""

    symbol: str
    trade_id: int
    order_id: str
    side: str
    price: int
    quantity: int
    fee: int
    fee_asset: str
    liquidity: str
    time: str

    @property
    def key(self) -> tuple[str, int, str]:
        return self.symbol, self.trade_id, self.order_id

    @property
    def quote(self) -> int:
        """Price times quantity, exactly: markets whose units do not divide so are refused."""
        product, rest = divmod(self.price * self.quantity, UNIT)
        assert rest == 0
        return int(product)


def fill_of(row: Mapping[str, Any]) -> Fill:
    return Fill(
        row["symbol"],
        int(row["trade_id"]),
        row["order_id"],
        row["side"],
        atoms(row["price"]),
        atoms(row["quantity"]),
        atoms(row["fee"]),
        row["fee_asset"],
        row["liquidity"],
        row["time"],
    )


class Heard(NamedTuple):
    """What an `orders` channel said last of an order. `connection` counts the user's WebSockets."""

    connection: int
    status: str
    filled: int
    reason: str | None


class Violations:
    """What must not be; the first of them are kept whole."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[str] = []

    def add(self, what: str) -> None:
        self.count += 1
        if len(self.first) < MOST_KEPT:
            self.first.append(what)


@dataclass
class Account:
    """One user: who it is, what it had when it joined, and everything that it was told."""

    user_id: str
    token: str
    start: dict[str, int]
    violations: Violations
    sent: dict[str, Sent] = field(default_factory=dict)
    fills: dict[tuple[str, int, str], Fill] = field(default_factory=dict)
    heard: dict[str, Heard] = field(default_factory=dict)
    canceled: set[str] = field(default_factory=set)  # Orders whose cancel was accepted.
    # The picture that a client has of its live orders, by status and filled: those of the last snapshot, as
    # updates have changed them since.
    live: dict[str, tuple[str, int]] = field(default_factory=dict)

    def answered(self, sent: Sent, answer: Accepted | Refused, *, twin: bool = False) -> None:
        """The exchange's word on an order: once accepted it is this order, for ever.

        Of twins, sent side by side, one may be refused for funds that the other found.
        """
        before = sent.answer
        if before is None or (twin and isinstance(before, Refused)):
            sent.answer = answer
        elif before != answer and not (twin and isinstance(answer, Refused)):
            self.violations.add(
                f"user {self.user_id}: {sent.client_order_id} was answered {before}, then {answer}"
            )

    def hear_fill(self, row: Mapping[str, Any]) -> None:
        """Heard on the stream: again, perhaps, but never otherwise."""
        fill = fill_of(row)
        before = self.fills.setdefault(fill.key, fill)
        if before != fill:
            self.violations.add(f"user {self.user_id} heard {before}, then {fill}")

    def hear_order(self, row: Mapping[str, Any], connection: int) -> None:
        """Within a connection an order moves forward only.

        A new connection may go to an instance that still reads older updates; it tells them all again.
        """
        heard = Heard(connection, row["status"], atoms(row["filled_quantity"]), row.get("reason"))
        order_id = row["order_id"]
        if heard.status in LIVE:
            self.live[order_id] = heard.status, heard.filled
        else:
            self.live.pop(order_id, None)
        before = self.heard.get(order_id)
        if before is not None:
            changed = before.status in ENDED and before[1:] != heard[1:]
            back = changed or heard.filled < before.filled
            if back and before.connection == connection:
                self.violations.add(f"user {self.user_id} heard order {order_id} as {before}, then {heard}")
            if back:
                return  # The end is what counts.
        self.heard[order_id] = heard


@dataclass
class Told:
    """All users' records, and what the load counted. Times are of the load's own clock."""

    accounts: list[Account] = field(default_factory=list)
    violations: Violations = field(default_factory=Violations)
    accepted_by_s: Counter[int] = field(default_factory=Counter)  # By second: orders answered 202 or 200.
    answers: Counter[str] = field(default_factory=Counter)  # By kind: "202", "422 NOTIONAL_TOO_SMALL", ...
    silences: int = 0  # Requests without an answer.
    resyncs: int = 0  # WebSocket connections after the first.

    @property
    def orders(self) -> int:
        return sum(len(account.sent) for account in self.accounts)

    @property
    def asked_again(self) -> int:
        return sum(sent.asked_again > 0 for account in self.accounts for sent in account.sent.values())
