"""Fixtures of all tests: the real servers, a fresh database, an exchange, and the seed of what is random."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog

from common import core
from daemons.local.servers import Servers
from tests.harness.exchange import Exchange, running_exchange
from tests.harness.servers import fresh_database, servers_in_a_thread

hypothesis.settings.register_profile(
    "exchange",
    deadline=None,  # Two cores, shared with servers: time says nothing about the code.
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("exchange")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="Seed of everything random; printed at the start")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # Where rich is installed, structlog draws each traceback with it: a second of work for every crash that
    # a simulation tries.
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], plain])
    if config.option.seed is None:
        config.option.seed = int(os.environ.get("TEST_SEED") or random.randrange(1 << 32))
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(config.option.seed)


def pytest_report_header(config: pytest.Config) -> list[str]:
    return [
        f"seed: {config.option.seed} (the same again: pytest --seed {config.option.seed})",
        f"core: {'compiled' if core.COMPILED else 'pure (python -X pure_core, or not compiled)'}",
    ]


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    """The seed of this run, for tests that draw at random without hypothesis."""
    value = pytestconfig.option.seed
    assert isinstance(value, int)
    return value


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """PostgreSQL, Valkey and Kafka, started once; works in synchronous and asynchronous tests."""
    with servers_in_a_thread(tmp_path_factory.mktemp("servers")) as running:
        yield running


@pytest.fixture
def database(servers: Servers) -> Iterator[str]:
    """The libpq URL of an empty database of this test's own."""
    with fresh_database(servers) as url:
        yield url


@pytest.fixture(scope="module")
def exchange(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    """A running exchange for the tests of one module."""
    logs: Path = tmp_path_factory.mktemp("exchange")
    with running_exchange(servers, logs) as running:
        yield running
