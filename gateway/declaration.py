"""What a route takes and answers, declared once, beside its handler.

The router, the checks of a query and the documents (openapi) are made from the same declaration, so that
none of them can say something else. A body's struct is what the handler decodes, an answer's what it encodes.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from common.core.errors import (
    AddressNotAllowed,
    Busy,
    ExchangeError,
    Malformed,
    PayloadTooLarge,
    PermissionMissing,
    SignatureRepeated,
    SignatureWrong,
    TimestampOutsideWindow,
    Unauthenticated,
    Unavailable,
)
from common.identity import permissions
from gateway.calls import Answer
from gateway.errors import KeyInFlight, KeyReused, RateLimited, RequestTimeout
from gateway.query import Parameter, Query

Permission = Literal["any", "read", "trade", "withdraw"]  # any: whoever is known.
_BITS = {"any": 0, "read": permissions.READ, "trade": permissions.TRADE, "withdraw": permissions.WITHDRAW}
Method = Literal["GET", "POST", "DELETE"]
# A call, its query, and the variable parts of its path.
Routed = Callable[..., Awaitable[Answer]]
H = TypeVar("H", bound=Routed)

IDENTITY: tuple[type[ExchangeError], ...] = (
    Unauthenticated, SignatureWrong, SignatureRepeated, TimestampOutsideWindow,
    PermissionMissing, AddressNotAllowed,
)  # fmt: skip
BEHIND: tuple[type[ExchangeError], ...] = (Busy, Unavailable)  # Of whatever asks the daemons behind.


@dataclass(frozen=True, slots=True)
class NotJson:
    """An answer that is no JSON."""

    media_type: str


@dataclass(eq=False, slots=True)
class Route:
    """One method of one path. `errors` leaves out what every route of its kind may answer: see `refusals`."""

    method: Method
    path: str  # As the router has it: /api/v1/orders/<order_id>.
    summary: str
    answers: Mapping[int, object]  # Status -> the type that is encoded, or NotJson.
    permission: Permission | None = None  # None: anybody may.
    query: tuple[Parameter[Any], ...] = ()
    parts: tuple[Parameter[Any], ...] = ()  # Of the path.
    body: object = None  # The type of the body; None: a body is not looked at.
    example: object = None  # Of the body.
    errors: tuple[type[ExchangeError], ...] = ()
    about: str = ""
    hot: bool = False  # Found without the router; no variable parts.
    any_query: bool = False  # A query is not looked at: for pages, and for what Prometheus asks.
    documented: bool = True  # Of the API; False for pages and their parts.
    operation: str = ""  # Its name in the documents: the handler's.

    def __call__(self, handler: H) -> H:
        """As a decorator, say what a handler serves: a method `(self, call, query, **parts) -> Answer`."""
        vars(handler)["route"] = self
        self.operation = handler.__name__
        return handler

    @property
    def needs(self) -> int:
        """The permission's bits."""
        return _BITS[self.permission or "any"]

    @property
    def keyed(self) -> bool:
        """Whether an Idempotency-Key is heeded."""
        return self.permission is not None and self.method != "GET"

    @property
    def refusals(self) -> list[type[ExchangeError]]:
        """Every error that a well-behaved exchange may answer here, by status."""
        found: list[type[ExchangeError]] = [RateLimited, Busy]
        if not self.any_query:
            found.append(Malformed)
        if self.permission is not None:
            found += IDENTITY
        if self.keyed:
            found += (KeyInFlight, KeyReused)
        if self.body is not None:
            found += (PayloadTooLarge, RequestTimeout)
        found += (error for error in self.errors if error not in found)
        return sorted(found, key=lambda error: error.http_status)

    def read(self, raw: bytes) -> Query:
        """The query of a call; raises Malformed."""
        return Query(b"" if self.any_query else raw, self.query)


class Handlers(Protocol):
    """A class whose methods serve routes, under one heading of the documents."""

    section: ClassVar[str]


def routes_of(handlers: type[Handlers]) -> list[Route]:
    """What a class declares, in the order in which it stands there."""
    return [route for member in vars(handlers).values() if (route := _route(member)) is not None]


def declared(handlers: Handlers) -> list[tuple[Route, Routed]]:
    """The same, with the bound handlers of an instance."""
    return [
        (route, getattr(handlers, name))
        for name, member in vars(type(handlers)).items()
        if (route := _route(member)) is not None
    ]


def _route(member: object) -> Route | None:
    route = getattr(member, "route", None)
    return route if isinstance(route, Route) else None
