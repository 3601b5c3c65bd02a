"""Checks against the sliding windows: in Redis for all gateways together, and here while Redis is away.

Checks of concurrent requests share one script call (natural batching, as everywhere). When Redis fails, those
that wait are decided here at once, and so is everything until it is back: a request waits `redis_pipe.CALL_S`
at most, and never hears an error because of Redis. The local windows start empty, and each gateway has its
own: while they decide, a subject gets at most its limit again at each gateway; `exchange_limits_degraded`
says so. A Redis that was flushed starts empty as well.

Who is paused is remembered here for a moment, so that a flood of one subject costs Redis little.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import trio

from common.telemetry import get_logger
from gateway import metrics
from gateway.redis_pipe import RedisAway, RedisPipe
from gateway.windows import LocalWindows, Outcome, Verdict, Window
from gateway.windows_script import read, script

MOST_CHECKS = 200  # In one script call: about 3 ms of Redis.
MOST_WAITING = 10_000
PAUSE_KEPT_S = 1.0  # Then Redis is asked again.
MOST_PAUSES = 10_000

log = get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Check:
    """One that waits for its verdict."""

    rule: int
    key: bytes
    weight: int
    ended: trio.Event = field(default_factory=trio.Event)
    verdict: Verdict | None = None


class Limiter:
    """`rules` are windows by name; one without windows limits nothing. Of use while `run` runs."""

    def __init__(self, pipe: RedisPipe, prefix: str, rules: Mapping[str, tuple[Window, ...]]) -> None:
        self._pipe = pipe
        self._windows = tuple(rules.values())
        # In one hash slot, so that a script may name several of them on a cluster too.
        self._rules = {
            name: (number, b"{%b}:limits:%b:" % (prefix.encode(), name.encode()))
            for number, name in enumerate(rules)
        }
        self._script = script(self._windows)
        self._local = LocalWindows()
        self._waiting: deque[_Check] = deque()
        self._filled = trio.Event()
        self._paused: OrderedDict[bytes, tuple[float, float, Verdict]] = OrderedDict()  # Asked, until.

    async def check(self, rule: str, subject: bytes, weight: int) -> Verdict | None:
        """Count it when there is room; None when the rule has no windows."""
        number, prefix = self._rules[rule]
        if not self._windows[number]:
            return None
        key = prefix + subject
        if self._paused and (paused := self._pause_of(key)) is not None:
            return paused
        check = _Check(number, key, weight)
        if not self._pipe.up or len(self._waiting) >= MOST_WAITING:
            return self._decide_here(check)
        self._waiting.append(check)
        self._filled.set()
        await check.ended.wait()
        assert check.verdict is not None
        return check.verdict

    def pause(self, rule: str, subject: bytes) -> Verdict | None:
        """The verdict of a subject that is known to be paused, without asking; None: not known to be."""
        return self._pause_of(self._rules[rule][1] + subject) if self._paused else None

    async def run(self) -> None:
        """Decide what is checked, for ever."""
        while True:
            await self._filled.wait()
            batch = [self._waiting.popleft() for _ in range(min(MOST_CHECKS, len(self._waiting)))]
            if not self._waiting:
                self._filled = trio.Event()
            try:
                await self._ask(batch)
            finally:
                for check in batch:
                    if check.verdict is None:
                        check.verdict = self._decide_here(check)
                    check.ended.set()

    async def _ask(self, batch: list[_Check]) -> None:
        """Leaves them without a verdict when Redis is away."""
        words = [word for check in batch for word in (check.rule + 1, check.weight)]
        try:
            reply = await self._pipe.script(self._script, [check.key for check in batch], words)
        except RedisAway as error:
            log.warning("limits are decided here", why=error.message, checks=len(batch))
            return
        assert isinstance(reply, bytes)
        for check, verdict in zip(batch, read(reply), strict=True):
            check.verdict = verdict
            if verdict.outcome is Outcome.PAUSED:
                self._keep_pause(check.key, verdict)

    def _decide_here(self, check: _Check) -> Verdict:
        metrics.limits_local.inc()
        now_ms = int(trio.current_time() * 1_000)
        return self._local.check(check.key, self._windows[check.rule], check.weight, now_ms)

    def _keep_pause(self, key: bytes, verdict: Verdict) -> None:
        now_s = trio.current_time()
        self._paused[key] = (now_s, now_s + min(PAUSE_KEPT_S, verdict.retry_ms / 1_000), verdict)
        if len(self._paused) > MOST_PAUSES:
            self._paused.popitem(last=False)

    def _pause_of(self, key: bytes) -> Verdict | None:
        found = self._paused.get(key)
        if found is None:
            return None
        asked_s, until_s, verdict = found
        now_s = trio.current_time()
        if now_s >= until_s:
            del self._paused[key]
            return None
        return verdict._replace(retry_ms=max(1, verdict.retry_ms - int((now_s - asked_s) * 1_000)))
