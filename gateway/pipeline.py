"""What every request to the API passes through, in one place.

    arrivals -> identity -> stages -> handler          and errors become answers around all of it

A stage takes a call and the rest of the way, and returns an answer: its own, or the one that comes
back. `arrivals` see every call before anybody is known (limits for each address); `stages` see private
calls with `call.user_id` (limits for each user, then Idempotency-Key). Adding one is a line in `app.build`.
"""

from collections.abc import Awaitable, Callable, Sequence

from common.core.errors import ExchangeError
from common.identity import permissions
from common.telemetry import get_logger
from gateway.auth import Identify
from gateway.calls import Answer, Call
from gateway.errors import error_answer

log = get_logger(__name__)

Handler = Callable[[Call], Awaitable[Answer]]
Stage = Callable[[Call, Handler], Awaitable[Answer]]


class Pipeline:
    """Wraps handlers; the wrapped ones never raise an Exception."""

    def __init__(
        self, identify: Identify, *, arrivals: Sequence[Stage] = (), stages: Sequence[Stage] = ()
    ) -> None:
        self._identify = identify
        self._arrivals = tuple(arrivals)
        self._stages = tuple(stages)

    def public(self, handler: Handler) -> Handler:
        return _answering(_through(self._arrivals, handler))

    def private(self, handler: Handler, needs: int = 0) -> Handler:
        """`needs`: bits of `common.identity.permissions` that the caller must have."""

        def allowed(call: Call) -> Awaitable[Answer]:
            assert call.caller is not None
            if needs & ~call.caller.permissions:
                permissions.check(call.caller.permissions, needs)
            return handler(call)

        inner = _through(
            self._stages, allowed
        )  # So what is not allowed counts against its user's limits too.

        async def identified(call: Call) -> Answer:
            call.caller = caller = await self._identify(call)
            call.user_id = caller.user_id
            return await inner(call)

        return _answering(_through(self._arrivals, identified))


def _through(stages: Sequence[Stage], handler: Handler) -> Handler:
    for stage in reversed(stages):
        handler = _before(stage, handler)
    return handler


def _before(stage: Stage, handler: Handler) -> Handler:
    def staged(call: Call) -> Awaitable[Answer]:
        return stage(call, handler)  # Awaited by who called: no coroutine more.

    return staged


def _answering(handler: Handler) -> Handler:
    async def answered(call: Call) -> Answer:
        try:
            return await handler(call)
        except ExchangeError as error:
            return error_answer(error)
        except Exception:
            log.exception("request failed", route=call.route, method=call.method)
            return error_answer(ExchangeError("Something went wrong here; the log knows this request's id."))

    return answered
