"""A producer that is given up leaves nobody waiting. On asyncio alone, as aiokafka is."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
from aiokafka.errors import KafkaError, KafkaTimeoutError, OutOfOrderSequenceNumber

from common import kafka as module
from common.kafka import Message, Producer

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Inner:
    """As much of an AIOKafkaProducer as is needed: the test answers, or does not."""

    def __init__(self) -> None:
        self.sent: list[asyncio.Future[Any]] = []
        self.may_send = anyio.Event()
        self.may_send.set()
        self.client = SimpleNamespace(close=self.stop)
        self._sender = SimpleNamespace(close=self.stop)
        self._message_accumulator = SimpleNamespace(fail_all=lambda error: None)

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def send(self, _topic: str, _value: bytes, **_: object) -> asyncio.Future[Any]:
        may_send = self.may_send
        await may_send.wait()
        self.sent.append(asyncio.get_running_loop().create_future())
        return self.sent[-1]


class Stand:
    def __init__(self) -> None:
        self.made: list[Inner] = []
        self.producer = Producer(cast(Any, self._make))
        self.offsets: list[int] = []

    def _make(self) -> Inner:
        self.made.append(Inner())
        return self.made[-1]

    async def send(self) -> None:
        self.offsets += await self.producer.send_many([Message("topic", 0, b"value")])


@pytest.fixture
async def stand() -> Stand:
    stand = Stand()
    await stand.producer.try_start()
    return stand


def acknowledge(future: asyncio.Future[Any], offset: int) -> None:
    future.set_result(SimpleNamespace(offset=offset))


@pytest.mark.parametrize("error", [OutOfOrderSequenceNumber(), KafkaTimeoutError()])
async def test_who_waits_for_a_producer_that_is_given_up_sends_again(stand: Stand, error: KafkaError) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(stand.send)
        await anyio.wait_all_tasks_blocked()
        stand.made[0].sent[0].set_exception(error)
        await anyio.wait_all_tasks_blocked()
        for offset, future in enumerate(stand.made[1].sent):
            acknowledge(future, offset)
    assert sorted(stand.offsets) == [0, 1]


async def test_who_was_about_to_send_with_it_does_not_wait_for_ever(stand: Stand) -> None:
    """A settler once did, and its partition stood still."""
    first = stand.made[0]
    async with anyio.create_task_group() as group:
        group.start_soon(stand.send)
        await anyio.wait_all_tasks_blocked()
        first.may_send = anyio.Event()
        group.start_soon(stand.send)
        await anyio.wait_all_tasks_blocked()
        first.sent[0].set_exception(OutOfOrderSequenceNumber())
        await anyio.wait_all_tasks_blocked()
        first.may_send.set()  # It takes the record, and nobody will ever send it.
        await anyio.wait_all_tasks_blocked()
        assert len(stand.made[1].sent) == 2
        for offset, future in enumerate(stand.made[1].sent):
            acknowledge(future, offset)


async def test_who_waits_for_its_metadata_goes_on_with_the_next_one(stand: Stand) -> None:
    """Its client is closed when it is given up, and never answers: a partition stood still."""
    first = stand.made[0]
    async with anyio.create_task_group() as group:
        group.start_soon(stand.send)
        await anyio.wait_all_tasks_blocked()
        first.may_send = anyio.Event()  # Never set.
        group.start_soon(stand.send)
        await anyio.wait_all_tasks_blocked()
        first.sent[0].set_exception(OutOfOrderSequenceNumber())
        await anyio.wait_all_tasks_blocked()
        for offset, future in enumerate(stand.made[1].sent):
            acknowledge(future, offset)
    assert sorted(stand.offsets) == [0, 1]


async def test_a_record_that_aiokafka_has_lost_is_sent_again(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_HUNG_S", 0.05)
    async with anyio.create_task_group() as group:
        group.start_soon(stand.send)
        with anyio.fail_after(5):
            while len(stand.made) < 2 or not stand.made[1].sent:
                await anyio.sleep(0.001)  # Real time has to pass.
        acknowledge(stand.made[1].sent[0], 7)
    assert stand.offsets == [7]
