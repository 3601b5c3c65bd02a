"""`python skewed.py SECONDS MODULE`: run a module as `python -m` would, with a clock that is so far off.

Python's own clocks of the day are shifted (`time`, `datetime`), not the monotonic one: as on a machine
whose clock was set wrong.
"""

import datetime as datetimes
import runpy
import sys
import time
from typing import Any


def shift(seconds: float) -> None:
    """From now on the time of day is `seconds` off, for whoever asks Python."""
    right_time, right_time_ns = time.time, time.time_ns
    right_gmtime, right_localtime = time.gmtime, time.localtime
    time.time = lambda: right_time() + seconds
    time.time_ns = lambda: right_time_ns() + int(seconds * 1e9)
    time.gmtime = lambda at=None: right_gmtime(time.time() if at is None else at)
    time.localtime = lambda at=None: right_localtime(time.time() if at is None else at)
    datetimes.datetime = _shifted(datetimes.datetime, datetimes.timedelta(seconds=seconds))  # type: ignore[misc]


def _shifted(right: type[datetimes.datetime], by: datetimes.timedelta) -> type[datetimes.datetime]:
    class Kind(type):
        """What the C modules make is of the right class, and is an instance of this one all the same."""

        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, right)

    class Shifted(right, metaclass=Kind):  # type: ignore[misc, valid-type]
        @classmethod
        def now(cls, tz: datetimes.tzinfo | None = None) -> Any:
            return right.now(tz) + by

        @classmethod
        def utcnow(cls) -> Any:
            return right.now(datetimes.UTC).replace(tzinfo=None) + by

        @classmethod
        def today(cls) -> Any:
            return right.now() + by

    return Shifted


if __name__ == "__main__":
    offset_s, module = float(sys.argv[1]), sys.argv[2]
    shift(offset_s)
    sys.argv = sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
