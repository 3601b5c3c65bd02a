"""`Idempotency-Key` on POST and DELETE: what is repeated under a key is carried out once, and answered alike.

    the key's record in Redis (`Records`)    the answer, at the price of a look
    order-service's claim of the key         the truth: one request carries it out, the others hear why not

A stage behind the identity, since a key belongs to its user. An answer is told when it is kept, never before:
so a key has one answer, whatever is killed. Work is named after its key (`Claim.name`), so that carrying it
out again, for a gateway that died or froze, does it once.

Kept are answers that would be the same again. One that is worth another try (5xx, 401, 403, 429) is not, and
the key is free at once.

Does not promise: a key for longer than 24 hours, nor anything on methods that change nothing.
"""

import re
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from typing import Protocol

import msgspec
import trio

from common.core.errors import ExchangeError, Malformed, Unavailable
from common.telemetry import get_logger
from exchange.v1 import internal_pb2 as internal
from gateway import metrics
from gateway.calls import Answer, Call, Claim
from gateway.errors import KeyInFlight, KeyReused, error_answer
from gateway.gather import Gather
from gateway.pipeline import Handler

HEADER = b"idempotency-key"
REPLAY = (b"idempotent-replay", b"true")
KEPT_S = 24 * 3600
# The time that a claimant has to begin. With the longest that TX1 works on what it was given (8 s), this ends
# before order-service lets others take the claim over (12 s): who was frozen meanwhile does nothing.
START_S = 3.0
GIVE_BACK_S = 1.0  # What a request that is being cancelled may still take.
BATCH, WAITING = 32, 10_000  # Keys in one call; an answer may have some hundred KiB.
UNKNOWN = "It is not known whether it was done: send it again with the same Idempotency-Key."
_METHODS = frozenset({"POST", "DELETE"})
_KEY = re.compile(rb"[\x21-\x7e]{1,255}")
_NOT_KEPT = frozenset({401, 403, 429})

log = get_logger(__name__)


class Kept(msgspec.Struct, array_like=True, gc=False):
    """A first answer, and the fingerprint of its request, as they are kept."""

    fingerprint: bytes
    status: int
    content_type: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Kept).decode


class Records(Protocol):
    """A quick memory in front, which may forget. Neither method raises an ExchangeError."""

    async def find(self, user_id: int, key: str) -> bytes | None: ...
    async def keep(self, user_id: int, key: str, answer: bytes, left_s: int) -> None: ...


class NoRecords:
    """Every key is asked for where it is true."""

    async def find(self, user_id: int, key: str) -> bytes | None:  # noqa: ARG002
        return None

    async def keep(self, user_id: int, key: str, answer: bytes, left_s: int) -> None:
        pass


class Idempotency:
    """The stage. Claims and settles of concurrent requests share calls, while `run` runs."""

    def __init__(
        self,
        claim: Callable[[list[internal.KeyClaim]], Awaitable[Sequence[internal.KeyState]]],
        settle: Callable[[list[internal.KeySettlement]], Awaitable[Sequence[internal.KeyState]]],
        records: Records | None = None,
        *,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """`now_s`: of the world, in seconds since the epoch."""
        self._records = records or NoRecords()
        self._now_s = now_s
        self._claims = Gather(claim, most=BATCH, most_waiting=WAITING)
        self._settlements = Gather(settle, most=BATCH, most_waiting=WAITING)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._claims.run)
            nursery.start_soon(self._settlements.run)

    def __call__(self, call: Call, rest: Handler) -> Awaitable[Answer]:
        """Awaiting it raises Malformed, KeyReused (422), KeyInFlight (409), Busy and Unavailable.

        No coroutine of its own for the many requests without a key.
        """
        if call.method in _METHODS and call.header(HEADER) is not None:
            return self._once(call, rest)
        return rest(call)

    async def _once(self, call: Call, rest: Handler) -> Answer:
        key, fingerprint = read_key(call), fingerprint_of(call)
        known = _readable(await self._records.find(call.user_id, key))
        if known is not None:
            return _replay(known, fingerprint, "record")
        claim = internal.KeyClaim(
            user_id=call.user_id, key=key, fingerprint=fingerprint, claimant=secrets.randbits(62) + 1
        )
        sent_s = trio.current_time()
        state = await self._claims.ask(claim)
        if state.answer:
            await self._keep(claim, state)
            return _replay(_decode(state.answer), fingerprint, "key")
        if not state.claimed:
            if state.fingerprint and state.fingerprint != fingerprint:
                raise _count(KeyReused())
            raise _count(KeyInFlight())
        if trio.current_time() - sent_s > START_S:
            await self._give_back(claim)
            raise Unavailable("The database is behind; nothing was done. Send it again.")
        call.claim = Claim(key, name_of(call.user_id, key, state.created_us))
        return await self._carry_out(call, rest, claim)

    async def _carry_out(self, call: Call, rest: Handler, claim: internal.KeyClaim) -> Answer:
        try:
            answer = await _answered(call, rest)
        except BaseException:  # The handler failed or was cancelled: nobody knows how far it came.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + GIVE_BACK_S):
                await self._give_back(claim)
            raise
        if not answer.final or answer.status >= 500 or answer.status in _NOT_KEPT:
            await self._give_back(claim)
            return answer
        kept = _encode(_kept(answer, claim.fingerprint))
        try:
            state = await self._settlements.ask(_settlement(claim, kept))
        except ExchangeError as error:
            raise Unavailable(f"{error.message} {UNKNOWN}") from None
        if state.answer:
            await self._keep(claim, state)
            if state.answer != kept:  # It was taken over, and the other one's answer is the first.
                return _replay(_decode(state.answer), claim.fingerprint, "key")
        elif state.fingerprint:
            raise _count(KeyInFlight())
        metrics.idempotent.labels("first").inc()
        return answer

    async def _give_back(self, claim: internal.KeyClaim) -> None:
        """So that a repetition need not wait until the claim is taken over."""
        try:
            await self._settlements.ask(_settlement(claim, b""))
        except ExchangeError as error:
            log.warning("a claim was not given back", error=error.message)

    async def _keep(self, claim: internal.KeyClaim, state: internal.KeyState) -> None:
        left_s = int(state.created_us / 1_000_000 + KEPT_S - self._now_s())
        if left_s > 0:
            await self._records.keep(claim.user_id, claim.key, state.answer, min(left_s, KEPT_S))


def read_key(call: Call) -> str:
    """The key that the headers name; raises Malformed."""
    sent = [value for name, value in call.headers if name == HEADER]
    if len(sent) > 1:
        raise _wrong_key("was sent more than once")
    if _KEY.fullmatch(sent[0]) is None:
        raise _wrong_key("must have 1 to 255 visible ASCII characters")
    return sent[0].decode("ascii")


def fingerprint_of(call: Call) -> bytes:
    """SHA-256 of method, path, query and body, each behind its length: no two requests look alike."""
    digest = sha256()
    for part in (call.method.encode("ascii"), call.target, call.query, call.body):
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.digest()


def name_of(user_id: int, key: str, created_us: int) -> str:
    """A name for what is done under a key: the same until the key ends, and another when it begins anew."""
    return "ik-" + sha256(f"{user_id} {created_us} {key}".encode("ascii")).hexdigest()[:32]


async def _answered(call: Call, rest: Handler) -> Answer:
    """A refusal is an answer like others."""
    try:
        return await rest(call)
    except ExchangeError as error:
        return error_answer(error)


def _kept(answer: Answer, fingerprint: bytes) -> Kept:
    return Kept(fingerprint, answer.status, answer.content_type, list(answer.headers), answer.body)


def _readable(record: bytes | None) -> Kept | None:
    """Redis may hold what another version wrote, or anybody."""
    try:
        return _decode(record) if record is not None else None
    except msgspec.DecodeError:
        return None


def _replay(kept: Kept, fingerprint: bytes, source: str) -> Answer:
    """The first answer again; raises KeyReused when another request had it."""
    if kept.fingerprint != fingerprint:
        raise _count(KeyReused())
    metrics.idempotent.labels(f"replayed from the {source}").inc()
    return Answer(kept.status, kept.body, kept.content_type, (*kept.headers, REPLAY))


def _settlement(claim: internal.KeyClaim, answer: bytes) -> internal.KeySettlement:
    return internal.KeySettlement(
        user_id=claim.user_id, key=claim.key, claimant=claim.claimant, answer=answer
    )


def _wrong_key(why: str) -> Malformed:
    return Malformed(f"Idempotency-Key {why}.", {"Idempotency-Key": why})


def _count(error: ExchangeError) -> ExchangeError:
    metrics.idempotent.labels(error.code).inc()
    return error
