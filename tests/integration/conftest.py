"""Tests against real servers: psycopg, aiokafka and grpc.aio need asyncio."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
