"""Virtual time on both event loops: when every task waits, the clock jumps to the next deadline.

Use it as the parameters of a module's `anyio_backend` fixture:

    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(request: pytest.FixtureRequest) -> Backend:
        return virtual_time(request.param)

Only for tests without sockets and threads: a jump does not wait for the outside world.
"""

import asyncio
import selectors
from typing import Any

from trio.testing import MockClock

Backend = tuple[str, dict[str, Any]]


class _JumpingSelector(selectors.SelectSelector):
    """Never waits for a timer: says at once that its time has come."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(None if timeout is None else 0)
        if not ready and timeout is not None:
            self.now_s += max(0.0, timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio loop whose clock starts at 0 and jumps."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s


def virtual_time(backend: str) -> Backend:
    """What anyio's pytest plugin takes for a backend, `asyncio` or `trio`, with a new clock."""
    if backend == "trio":
        return "trio", {"clock": MockClock(autojump_threshold=0)}
    return "asyncio", {"loop_factory": VirtualTimeLoop}
