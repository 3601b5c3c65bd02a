"""When to send a request again, and when to stop.

Nothing is repeated that could be done twice. What a request may do decides: reading does nothing; placing
under a client_order_id and what carries an Idempotency-Key is done once however often it is sent; of all
else only what certainly was not carried out is sent again.
"""

import math
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn, TypeVar

import anyio

from exchange_client.errors import (
    Busy,
    Forbidden,
    NoAnswer,
    NotSent,
    RateLimited,
    Refusal,
    Unauthenticated,
    Unavailable,
    UnknownSymbol,
)

T = TypeVar("T")
TELLS_NOTHING = (Unauthenticated, Forbidden, UnknownSymbol)  # Of a request that was sent before this one.


class Effect(Enum):
    """What a request may do."""

    READ = "nothing"
    NAMED = "once, however often it is sent"
    ONCE = "each time it is sent"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to try. Raises ValueError for times that cannot work."""

    deadline_s: float = 30.0  # For a call with all its attempts and pauses.
    attempt_s: float = 10.0  # For one attempt.
    first_pause_s: float = 0.1  # Doubled each time, and drawn between half and the whole.
    longest_pause_s: float = 5.0  # Unless the exchange asks for a longer one.

    def __post_init__(self) -> None:
        if not 0 < self.attempt_s <= self.deadline_s:
            raise ValueError("attempt_s must be more than 0 and at most deadline_s")
        if not 0 < self.first_pause_s <= self.longest_pause_s:
            raise ValueError("first_pause_s must be more than 0 and at most longest_pause_s")

    def pauses(self, dice: random.Random) -> Iterator[float]:
        """Seconds, for ever."""
        for attempt in range(1 << 31):
            pause_s = min(self.longest_pause_s, math.ldexp(self.first_pause_s, min(attempt, 60)))
            yield pause_s * dice.uniform(0.5, 1.0)


def may_repeat(error: NoAnswer | Refusal, effect: Effect) -> bool:
    """Whether the same request may be sent again after this, and whether it makes sense."""
    if isinstance(error, NotSent | RateLimited | Busy):
        return True
    if isinstance(error, NoAnswer | Unavailable):
        return effect is not Effect.ONCE
    return error.status == 409 and error.retry_after_s is not None  # One like it is under way.


def is_unknown(error: NoAnswer | Refusal) -> bool:
    """Whether the request may have been carried out nevertheless."""
    if isinstance(error, NotSent | Busy):
        return False
    return isinstance(error, NoAnswer | Unavailable)


async def persist(
    attempt: Callable[[], Awaitable[T]],
    effect: Effect,
    patience: Patience,
    dice: random.Random,
) -> T:
    """Attempt until it succeeds, fails for good, or the deadline comes.

    Raises the last Refusal; NoAnswer when something may have been done and nobody has said so.
    """
    give_up_s = anyio.current_time() + patience.deadline_s
    pauses = patience.pauses(dice)
    unknown = False
    while True:
        try:
            return await _within(min(patience.attempt_s, give_up_s - anyio.current_time()), attempt)
        except (NoAnswer, Refusal) as error:
            unknown = unknown or is_unknown(error)
            pause_s = max(next(pauses), _asked_for(error, dice))
            if not may_repeat(error, effect):
                # Most refusals decide it. Who is no longer let in hears nothing of what was done before.
                _give_up(error, effect, unknown if isinstance(error, TELLS_NOTHING) else is_unknown(error))
            if anyio.current_time() + pause_s >= give_up_s:
                _give_up(error, effect, unknown)
        await anyio.sleep(pause_s)


def _give_up(error: NoAnswer | Refusal, effect: Effect, unknown: bool) -> NoReturn:
    """Raise what the caller is to know: the error, or that nobody knows."""
    decided = effect is Effect.READ or not unknown
    if decided or type(error) is NoAnswer:
        raise error
    raise NoAnswer(f"it may have been carried out; the last answer was: {error}") from error


def _asked_for(error: NoAnswer | Refusal, dice: random.Random) -> float:
    """The pause that the exchange asks for, and a little more, so that not all come back at once."""
    asked_s = error.retry_after_s if isinstance(error, Refusal) else None
    return asked_s * dice.uniform(1.0, 1.1) if asked_s else 0.0


async def _within(limit_s: float, attempt: Callable[[], Awaitable[T]]) -> T:
    with anyio.move_on_after(limit_s):
        return await attempt()
    raise NoAnswer(f"no answer within {limit_s:g} s")
