"""When a request is sent again: in virtual time, on both event loops."""

import random
from collections.abc import Awaitable, Callable

import anyio
import pytest

from exchange_client.errors import (
    Busy,
    Conflict,
    ExchangeError,
    Forbidden,
    InsufficientFunds,
    NoAnswer,
    NotSent,
    RateLimited,
    Refusal,
    Unauthenticated,
    Unavailable,
    UnknownSymbol,
)
from exchange_client.patience import Effect, Patience, persist
from tests.harness.virtual_time import Backend, virtual_time

pytestmark = pytest.mark.anyio

PATIENCE = Patience(deadline_s=30, attempt_s=10)
LOST, NOT_SENT = NoAnswer("lost"), NotSent("no connection")
AWAY = Unavailable("UNAVAILABLE", "away", status=503, retry_after_s=1)
BUSY = Busy("BUSY", "full", status=503, retry_after_s=1)
LIMITED = RateLimited("RATE_LIMITED", "slower", status=429, retry_after_s=7)
POOR = InsufficientFunds("INSUFFICIENT_FUNDS", "too little", status=422)
IN_FLIGHT = Conflict("CONFLICT", "one like it is under way", status=409, retry_after_s=1)
SHUT_OUT = Unauthenticated("UNAUTHENTICATED", "who?", status=401)
NOT_ALLOWED = Forbidden("PERMISSION_MISSING", "no", status=403)
UNHEARD_OF = UnknownSymbol("UNKNOWN_SYMBOL", "no such market", status=404)
TAKEN = Conflict("DUPLICATE_CLIENT_ORDER_ID", "another", status=409)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return virtual_time(request.param)


def failing(*errors: NoAnswer | Refusal) -> Callable[[], Awaitable[int]]:
    """Fails so, one after the other; then gives the number of the attempt."""
    attempts = 0

    async def attempt() -> int:
        nonlocal attempts
        attempts += 1
        if attempts <= len(errors):
            raise errors[attempts - 1]
        return attempts

    return attempt


async def persisted(effect: Effect, *errors: NoAnswer | Refusal) -> int:
    return await persist(failing(*errors), effect, PATIENCE, random.Random(1))


@pytest.mark.parametrize("error", [LOST, NOT_SENT, AWAY, BUSY, LIMITED, IN_FLIGHT])
@pytest.mark.parametrize("effect", [Effect.READ, Effect.NAMED])
async def test_what_is_safe_is_sent_again(effect: Effect, error: NoAnswer | Refusal) -> None:
    assert await persisted(effect, error, error) == 3


@pytest.mark.parametrize("error", [NOT_SENT, BUSY, LIMITED])
async def test_what_was_certainly_not_done_is_sent_again(error: NoAnswer | Refusal) -> None:
    assert await persisted(Effect.ONCE, error) == 2


@pytest.mark.parametrize("error", [LOST, AWAY])
async def test_what_may_have_been_done_is_not(error: NoAnswer | Refusal) -> None:
    with pytest.raises(NoAnswer) as raised:
        await persisted(Effect.ONCE, error)
    assert type(raised.value) is NoAnswer


@pytest.mark.parametrize("error", [POOR, TAKEN])
@pytest.mark.parametrize("effect", Effect)
async def test_a_refusal_is_final(effect: Effect, error: Refusal) -> None:
    with pytest.raises(type(error)):
        await persisted(effect, error)


async def test_a_refusal_after_a_lost_answer_is_what_the_exchange_says() -> None:
    with pytest.raises(InsufficientFunds):
        await persisted(Effect.NAMED, LOST, POOR)


@pytest.mark.parametrize("error", [SHUT_OUT, NOT_ALLOWED, UNHEARD_OF])
async def test_who_is_let_in_no_more_hears_nothing_of_what_was_done(error: Refusal) -> None:
    with pytest.raises(NoAnswer, match="may have been carried out"):
        await persist(failing(LOST, error), Effect.NAMED, PATIENCE, random.Random(1))
    with pytest.raises(type(error)):
        await persist(failing(error), Effect.NAMED, PATIENCE, random.Random(1))


async def test_retry_after_is_honoured() -> None:
    began_s = anyio.current_time()
    await persisted(Effect.NAMED, LIMITED)
    assert 7 <= anyio.current_time() - began_s <= 7.7


async def test_pauses_grow_and_are_spread() -> None:
    began_s = anyio.current_time()
    await persisted(Effect.NAMED, LOST, LOST, LOST, LOST)
    assert 0.5 * 1.5 <= anyio.current_time() - began_s <= 1.5


@pytest.mark.parametrize(
    ("effect", "errors", "raised"),
    [
        (Effect.NAMED, [LIMITED] * 50, RateLimited),
        (Effect.NAMED, [BUSY] * 50, Busy),
        (Effect.NAMED, [NOT_SENT] * 50, NotSent),
        (Effect.NAMED, [AWAY] * 50, NoAnswer),
        (Effect.NAMED, [LOST] + [BUSY] * 50, NoAnswer),
        (Effect.NAMED, [LOST] + [NOT_SENT] * 50, NoAnswer),
        (Effect.READ, [AWAY] * 50, Unavailable),
        (Effect.READ, [LOST] + [NOT_SENT] * 50, NotSent),
    ],
)
async def test_the_deadline_tells_what_is_known(
    effect: Effect, errors: list[NoAnswer | Refusal], raised: type[ExchangeError]
) -> None:
    began_s = anyio.current_time()
    with pytest.raises(raised) as caught:
        await persisted(effect, *errors)
    assert type(caught.value) is raised
    assert 20 <= anyio.current_time() - began_s <= 30


async def test_an_attempt_that_hangs_is_given_up() -> None:
    attempts = 0

    async def attempt() -> int:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            await anyio.sleep_forever()
        return attempts

    began_s = anyio.current_time()
    assert await persist(attempt, Effect.NAMED, PATIENCE, random.Random(1)) == 3
    assert 20 <= anyio.current_time() - began_s <= 21
    attempts = -100
    with pytest.raises(NoAnswer):
        await persist(attempt, Effect.READ, PATIENCE, random.Random(1))
    assert anyio.current_time() - began_s <= 51


async def test_a_caller_may_cancel() -> None:
    with anyio.move_on_after(3) as scope:
        await persisted(Effect.NAMED, *[LIMITED] * 50)
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    "times",
    [{"attempt_s": 0}, {"attempt_s": 31}, {"first_pause_s": 0}, {"longest_pause_s": 0.01}],
)
def test_times_that_cannot_work_are_refused(times: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Patience(**times)
