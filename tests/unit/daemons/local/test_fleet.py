"""How the daemons are started, without starting them, and how their restarts are paced."""

import sys
from pathlib import Path

import anyio
import pytest

from common.config import Settings, addresses
from daemons.local.fleet import MODULES, Keeper, choose_ports, instances, programs
from daemons.local.ports import PortTaken, free_port, listen, preferred_port
from daemons.local.process import Program
from daemons.local.rolling import roll
from daemons.local.servers import Servers
from tests.harness.servers import bare_settings

_SERVERS = Servers("postgresql://pg", "redis://r", "kafka:1")


def test_each_daemon_reads_back_the_settings_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = bare_settings(
        partitions=2,
        topic_prefix="mine",
        local_mode=True,
        drain_s=1.5,
        gateways=2,
        order_services=2,
        master_keys_file="keys",
    )
    with listen("127.0.0.1", free_port(), "EXCHANGE_PORT") as listener:
        ports = choose_ports(settings, listener.getsockname()[1])
        made = programs(settings, _SERVERS, ports, tmp_path, listener)
        assert made["gateway"].pass_fds == made["gateway-2"].pass_fds == (listener.fileno(),)
        assert list(made) == [
            *("gateway", "gateway-2", "order-service", "order-service-2"),
            *("matching-1", "matching-2", "market-data"),
        ]
        for name, program in made.items():
            assert program.env is not None
            for key, value in program.env.items():
                monkeypatch.setenv(key, value)
            read = Settings()
            assert (read.instance, read.partitions, read.topic_prefix) == (name, 2, "mine")
            assert (read.postgres_url, read.kafka_bootstrap) == ("postgresql://pg", "kafka:1")
            assert read.local_mode
            assert read.drain_s == 1.5
            assert read.master_keys_file == ("keys" if name.startswith("order-service") else "")
            assert read.listen_fd == (listener.fileno() if name.startswith("gateway") else -1)
            assert len(addresses(read.orders_internal_address)) == 2
            if name.startswith("order-service"):
                assert f":{read.orders_internal_port}" in read.orders_internal_address
                assert read.orders_port in ports.of("orders_port")
            if name == "market-data":
                assert read.market_data_address == f"127.0.0.1:{read.market_data_internal_port}"
                assert read.market_data_ws_address == f"127.0.0.1:{read.market_data_ws_port}"
            assert read.health_port == ports.health[name]
    everything = [port for own in ports.own.values() for port in own.values()]
    assert len(set(everything)) == len(everything)


def test_one_of_each_and_two_matchings_unless_asked_for_more() -> None:
    assert list(instances(bare_settings())) == list(MODULES)
    assert list(MODULES) == ["gateway", "order-service", "matching-1", "matching-2", "market-data"]
    assert list(instances(bare_settings(matchings=1, market_datas=3)))[2:] == [
        *("matching-1", "market-data", "market-data-2", "market-data-3")
    ]


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


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_rolling_restart_goes_on_only_when_the_last_one_is_ready(tmp_path: Path) -> None:
    said: list[str] = []
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    keepers = {name: Keeper(Program(name, sleep, tmp_path / name), said.append) for name in ("a", "b")}
    ready = ["a"]

    async def is_ready(name: str) -> bool:
        return name in ready

    async def pids() -> list[int]:
        with anyio.fail_after(10):
            while not all(keeper.child for keeper in keepers.values()):
                await anyio.sleep(0.01)
        return [keeper.child.pid for keeper in keepers.values() if keeper.child]

    async with anyio.create_task_group() as group:
        for keeper in keepers.values():
            group.start_soon(keeper.run)
        first = await pids()
        assert "There is no daemon c" in await roll(keepers, ["c"], is_ready, said.append)
        assert await roll(keepers, ["a"], is_ready, said.append, settle_s=0) == ""
        second = await pids()
        assert (first[0] != second[0], first[1]) == (True, second[1])
        assert "b did not get ready" in await roll(keepers, ["b", "a"], is_ready, said.append, ready_s=0.1)
        third = await pids()
        assert (second[0], second[1] != third[1]) == (third[0], True)
        assert [keeper.restarts for keeper in keepers.values()] == [0, 0], "a wish is no failure"
        for keeper in keepers.values():
            keeper.cancel()
    assert said == ["Restarting a ...", "Restarting b ..."]
