"""What `exchange up` leaves in the data folder for others: the lock that it holds, and where things are.

The lock ends with the process that holds it, however that ends, so it alone says whether `up` runs.
`run.json` holds passwords inside URLs: it is for its owner's eyes.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from daemons.local.fleet import Ports
from daemons.local.process import LocalError


class AlreadyRunning(LocalError):
    """Another `exchange up` uses this data folder."""

    code = "ALREADY_RUNNING"


@dataclass(frozen=True, slots=True)
class Run:
    """A running exchange: its servers, its ports, and who keeps it."""

    pid: int
    url: str
    host: str
    postgres_url: str
    redis_url: str
    kafka_bootstrap: str
    topic_prefix: str
    ports: Ports


@contextmanager
def locked(data: Path) -> Iterator[None]:
    """The data folder, created when missing, is ours while the body runs. Raises AlreadyRunning."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise LocalError(
            f"The data folder {data} cannot be used ({error.strerror});"
            " choose another with --data or EXCHANGE_DATA"
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(
                f"Another `exchange up` runs on {data}; stop it, or choose another folder with --data"
                " (and another port with --port)"
            ) from None
        yield
    finally:
        os.close(handle)


def is_locked(data: Path) -> bool:
    """True while somebody holds the lock."""
    try:
        handle = os.open(data / "lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


@contextmanager
def recorded(data: Path, run: Run) -> Iterator[None]:
    """`run.json` says so while the body runs."""
    path = data / "run.json"
    half = path.with_name("run.json.new")
    half.unlink(missing_ok=True)
    with open(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(asdict(run), file, indent=2)
    half.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def read_run(data: Path) -> Run | None:
    """The exchange that runs on this folder; None when none does, or it has only just begun."""
    try:
        found = json.loads((data / "run.json").read_text())
    except FileNotFoundError:
        return None
    if not is_locked(data):
        return None  # Left behind by one that was killed.
    return Run(**found | {"ports": Ports(**found["ports"])})
