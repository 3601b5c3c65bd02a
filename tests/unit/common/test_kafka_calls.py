"""Whose cancellation it was decides what becomes of it. On asyncio alone, as aiokafka is."""

import asyncio

import anyio
import pytest
from aiokafka.errors import KafkaError

from common.kafka_calls import cancelled_by_us_alone

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def futures() -> tuple[asyncio.Future[None], asyncio.Future[None]]:
    loop = asyncio.get_running_loop()
    return loop.create_future(), loop.create_future()


async def test_what_aiokafka_cancels_is_an_error_of_kafka() -> None:
    cancelled, _ = futures()
    cancelled.cancel()
    with pytest.raises(KafkaError, match="cancelled"), cancelled_by_us_alone():
        await cancelled


async def test_it_does_not_end_the_others_without_a_word() -> None:
    """What it is there for: a task group takes such a cancellation for its own."""
    cancelled, _ = futures()

    async def call() -> None:
        with cancelled_by_us_alone():
            await cancelled

    async def work() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await anyio.wait_all_tasks_blocked()
            cancelled.cancel()
            await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await work()
    assert caught.group_contains(KafkaError)


async def test_our_own_cancellation_and_our_deadlines_pass() -> None:
    _, never = futures()
    with anyio.CancelScope() as scope:
        scope.cancel()
        with cancelled_by_us_alone():
            await never
    assert scope.cancelled_caught
    with pytest.raises(TimeoutError), anyio.fail_after(0.01), cancelled_by_us_alone():
        await futures()[1]


async def test_in_a_shield_a_cancellation_is_not_ours() -> None:
    cancelled, _ = futures()
    cancelled.cancel()
    with anyio.CancelScope() as scope:
        scope.cancel()
        with anyio.CancelScope(shield=True), pytest.raises(KafkaError), cancelled_by_us_alone():
            await cancelled
