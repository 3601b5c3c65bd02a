"""Orders as the bytes of a request, and what has become of each order of a batch; pure."""

from collections.abc import Sequence

import msgspec

from exchange_client.errors import ProtocolError, Refusal, Unavailable, refusal
from exchange_client.http import Answer, ErrorBody, read
from exchange_client.values import Accepted, NewOrder, amount_text

_AMOUNTS = ("price", "quantity", "quote_quantity")


class _Results(msgspec.Struct):
    results: list[msgspec.Raw]


class _Refused(msgspec.Struct):
    """One result, as far as it is a refusal."""

    error: ErrorBody | None = None


_refused = msgspec.json.Decoder(_Refused)
_accepted = msgspec.json.Decoder(Accepted)


def encode(order: NewOrder) -> bytes:
    """The body of one order."""
    return msgspec.json.encode(_fields(order))


def _fields(order: NewOrder) -> dict[str, object]:
    """Amounts become plain digits, which Decimal's own text is not always."""
    fields: dict[str, object] = msgspec.to_builtins(order)
    for name in _AMOUNTS:
        if fields.get(name) is not None:
            fields[name] = amount_text(getattr(order, name))
    return fields


class Batch:
    """The orders of one batch, each with its result, if there is one that stays."""

    def __init__(self, orders: Sequence[NewOrder]) -> None:
        self._orders = list(orders)
        self._results: list[Accepted | Refusal | None] = [None] * len(self._orders)

    def ask(self) -> bytes:
        """The body of the next attempt: the orders without a result that stays. Theirs are open again."""
        for index in self._waiting():
            self._results[index] = None
        return msgspec.json.encode([_fields(self._orders[index]) for index in self._waiting()])

    def take(self, answer: Answer) -> None:
        """The answer to `ask`. Raises the refusal of an order that is to be sent again; ProtocolError."""
        waiting = self._waiting()
        results = read(answer, _Results).results
        if len(results) != len(waiting):
            raise ProtocolError(f"{len(results)} results for {len(waiting)} orders")
        for index, raw in zip(waiting, results, strict=True):
            self._results[index] = _result(raw)
        for result in self._results:
            if isinstance(result, Unavailable):
                raise result

    def results(self) -> list[Accepted | Refusal] | None:
        """One for each order; None when not all of them have one."""
        found = [result for result in self._results if result is not None]
        return found if len(found) == len(self._orders) else None

    def _waiting(self) -> list[int]:
        return [
            index
            for index, result in enumerate(self._results)
            if result is None or isinstance(result, Unavailable)
        ]


def _result(raw: msgspec.Raw) -> Accepted | Refusal:
    try:
        error = _refused.decode(raw).error
        return _accepted.decode(raw) if error is None else refusal(error.code, error.message, error.details)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"a result cannot be read: {error}") from error
