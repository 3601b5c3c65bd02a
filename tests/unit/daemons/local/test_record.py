"""The lock on a data folder, and what `run.json` says to others."""

import stat
from pathlib import Path

import pytest

from daemons.local.fleet import Ports
from daemons.local.process import LocalError
from daemons.local.record import AlreadyRunning, Run, is_locked, locked, read_run, recorded

_RUN = Run(
    pid=1,
    url="http://127.0.0.1:8100",
    host="127.0.0.1",
    postgres_url="postgresql://u:secret@127.0.0.1:1/x",
    redis_url="redis://127.0.0.1:2",
    kafka_bootstrap="127.0.0.1:3",
    topic_prefix="exchange",
    ports=Ports(
        8100, {"order-service": {"orders_port": 4, "health_port": 5}, "matching-1": {"health_port": 6}}
    ),
)


def test_a_folder_is_locked_once_and_free_again(tmp_path: Path) -> None:
    data = tmp_path / "new" / "data"
    assert not is_locked(data)
    with locked(data):
        assert is_locked(data)
        with pytest.raises(AlreadyRunning, match="--data"), locked(data):
            pass
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert not is_locked(data)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalError, match="EXCHANGE_DATA"), locked(tmp_path / "file" / "data"):
        pass


def test_a_run_is_read_back_while_it_runs_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    assert read_run(tmp_path) is None
    with locked(tmp_path):
        with recorded(tmp_path, _RUN):
            assert read_run(tmp_path) == _RUN
            assert stat.S_IMODE((tmp_path / "run.json").stat().st_mode) == 0o600
        assert read_run(tmp_path) is None


def test_what_a_killed_one_left_behind_counts_for_nothing(tmp_path: Path) -> None:
    with locked(tmp_path), recorded(tmp_path, _RUN):
        left = (tmp_path / "run.json").read_text()
    (tmp_path / "run.json").write_text(left)
    assert read_run(tmp_path) is None
