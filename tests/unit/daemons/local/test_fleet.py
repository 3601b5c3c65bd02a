"""How the daemons are started, without starting them, and how their restarts are paced."""

import sys
from pathlib import Path

import pytest

from common.config import Settings
from daemons.local.fleet import MODULES, Keeper, choose_ports, programs
from daemons.local.ports import PortTaken, free_port, listen, preferred_port
from daemons.local.process import Program
from daemons.local.servers import Servers
from tests.harness.servers import bare_settings

_SERVERS = Servers("postgresql://pg", "redis://r", "kafka:1")


def test_each_daemon_reads_back_the_settings_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = bare_settings(partitions=2, topic_prefix="mine", local_mode=True, drain_s=1.5)
    with listen("127.0.0.1", free_port(), "EXCHANGE_PORT") as listener:
        ports = choose_ports(settings, listener.getsockname()[1])
        made = programs(settings, _SERVERS, ports, tmp_path, listener)
        assert made["gateway"].pass_fds == (listener.fileno(),)
        assert list(made) == list(MODULES)
        for name, program in made.items():
            assert program.env is not None
            for key, value in program.env.items():
                monkeypatch.setenv(key, value)
            read = Settings()
            assert (read.instance, read.partitions, read.topic_prefix) == (name, 2, "mine")
            assert (read.postgres_url, read.kafka_bootstrap) == ("postgresql://pg", "kafka:1")
            assert read.local_mode
            assert read.drain_s == 1.5
            assert read.listen_fd == (listener.fileno() if name == "gateway" else -1)
            assert read.orders_internal_address.endswith(f":{read.orders_internal_port}")
            assert read.health_port == ports.health.get(name, 0)


def test_public_grpc_ports_follow_the_gateway_unless_named() -> None:
    gateway = free_port()
    with listen("127.0.0.1", gateway, "EXCHANGE_PORT"):
        ports = choose_ports(bare_settings(), gateway)
    assert ports.orders != Settings().orders_port, "two exchanges on one machine must not meet"
    taken = free_port()
    with listen("127.0.0.1", taken, "EXCHANGE_PORT"):
        assert preferred_port(taken) != taken
        with pytest.raises(PortTaken, match=f"Port {taken} .* EXCHANGE_ORDERS_PORT"):
            choose_ports(Settings(orders_port=taken), gateway)


def test_free_ports_are_not_given_twice() -> None:
    given = [free_port() for _ in range(200)]
    assert len(set(given)) == len(given)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_daemon_that_keeps_ending_is_started_less_and_less_often(tmp_path: Path) -> None:
    said: list[str] = []
    keeper: Keeper
    stopped = False

    def progress(line: str) -> None:
        nonlocal stopped
        said.append(line)
        if len(said) == 3:
            stopped = True
            keeper.cancel()

    keeper = Keeper(
        Program("failing", [sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "log"), progress
    )
    await keeper.run()
    assert stopped
    assert keeper.restarts == 3
    assert [line.split(" (")[0] for line in said] == [
        f"failing ended with code 3; starting it again in {pause} s" for pause in ("0.5", "1", "2")
    ]
