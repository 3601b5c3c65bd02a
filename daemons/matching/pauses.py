"""How an engine that computes in a thread lets the loop's go on.

Giving the interpreter away costs some 60 us, as much as 50 commands: done whenever the engine offers it, it
was most of what a batch cost. If it were kept, the loop would wait for 5 ms whenever it has something to do.
"""

import time

KEEP_S = 0.0005


class Pauses:
    """A `Pause` for one use of an engine: gives the interpreter away when it was kept for `KEEP_S`."""

    def __init__(self) -> None:
        self._until_s = time.perf_counter() + KEEP_S

    def __call__(self) -> None:
        if time.perf_counter() >= self._until_s:
            time.sleep(0.0)
            self._until_s = time.perf_counter() + KEEP_S
