"""What an operator's acts change and refuse: the fence, the log that engines see, the record that is kept."""

import anyio
import pytest

from common import stops
from common.audit import audit
from common.core import messages as m
from common.core.errors import Malformed, NotFound
from common.core.sequencing import with_skips
from common.lease import PostgresLeases
from common.lease_base import Standing
from common.replay import replay
from daemons.order_service.requests import CancelOrder
from daemons.order_service.settlement import Delivery
from tests.integration.order_service.desk import TOKEN, USD, Desk, limit

pytestmark = pytest.mark.anyio

ACT = stops.Act(0, "tester", "it cannot be applied")
TOPIC = "exchange.orders"
_TOKEN = "SELECT fencing_token FROM partition_leader_locks WHERE (service, partition) = ('matching', 0)"


async def _token(desk: Desk) -> int:
    [(token,)] = await desk.rows(_TOKEN)
    return token


async def _stop(desk: Desk, service: str = stops.MATCHING, **where: object) -> None:
    assert await stops.stop(desk.connection, 0, service, "broken", **where)  # type: ignore[arg-type]  # any of them


async def _settle_with_skips(desk: Desk, token: int) -> None:
    """A new leader: restored at the watermark, with the skips, under a new token."""
    skips = await stops.read_skips(desk.connection, 0)
    deliveries = []
    for batch in await desk.batches(0, desk.engines[0].sequence):
        settlement = desk.engines[0].apply(with_skips(batch, skips)).settlement
        deliveries.append(Delivery(settlement, token, desk.offset, desk.offset))
    outcome = await desk.settle(0, deliveries)
    assert len(outcome.fresh) == len(deliveries) > 0


async def test_a_skipped_order_ends_with_its_hold_returned(desk: Desk) -> None:
    user = await desk.user()
    placed = await desk.place(limit(user, m.Side.BUY, 5_000_000, 1_000))
    rests = await desk.place(limit(user, m.Side.BUY, 4_000_000, 1_000))
    _, held = await desk.account(user, USD)
    await _stop(desk, sequence=placed.sequence)
    await stops.skip_command(desk.connection, ACT, placed.sequence)
    assert await stops.read_stops(desk.connection) == []
    await _settle_with_skips(desk, TOKEN + 1)
    [row] = await desk.rows(
        "SELECT status, reason, held_atoms FROM orders WHERE order_id = %s", placed.order_id
    )
    assert row == (m.OrderStatus.CANCELED, m.Reason.OPERATOR_SKIP, 0)
    [(still,)] = await desk.rows("SELECT held_atoms FROM orders WHERE order_id = %s", rests.order_id)
    assert 0 < still == (await desk.account(user, USD))[1] < held
    assert [one for one in await audit(desk.connection) if not one.ok] == []
    report = await replay(desk.connection, points=2, seed=1, progress=print)
    assert report.differences.first == []
    assert report.partitions[0].skipped == 1


async def test_a_skipped_cancel_changes_nothing(desk: Desk) -> None:
    user = await desk.user()
    placed = await desk.place(limit(user, m.Side.BUY, 5_000_000, 1_000))
    await desk.submit(CancelOrder(user, placed.order_id))
    await stops.skip_command(desk.connection, ACT, placed.sequence + 1, force=True)
    await _settle_with_skips(desk, TOKEN + 1)
    [row] = await desk.rows("SELECT status FROM orders WHERE order_id = %s", placed.order_id)
    assert row == (m.OrderStatus.OPEN,)
    assert (await replay(desk.connection, points=2, seed=1, progress=print)).ok


async def test_what_the_leader_of_before_sent_is_refused(desk: Desk) -> None:
    user = await desk.user()
    placed = await desk.place(limit(user, m.Side.BUY, 5_000_000, 1_000))
    sent = await desk.match(0)
    await stops.skip_command(desk.connection, ACT, placed.sequence, force=True)
    assert (await desk.settle(0, sent)).fresh == []


async def test_a_command_can_be_skipped_once_and_only_where_it_waits(desk: Desk) -> None:
    user = await desk.user()
    placed = await desk.place(limit(user, m.Side.BUY, 5_000_000, 1_000))
    [(watermark,)] = await desk.rows("SELECT sequence FROM watermarks WHERE partition = 0")
    for sequence, refusal in (
        (placed.sequence, stops.NotStopped),
        (watermark, stops.AlreadySettled),
        (0, stops.AlreadySettled),
        (placed.sequence + 1, stops.NotInLog),
    ):
        before = await _token(desk)
        if refusal is not stops.NotStopped:
            await _stop(desk)
        with pytest.raises(refusal):
            await stops.skip_command(desk.connection, ACT, sequence)
        assert await _token(desk) == before, "what is refused changes nothing"
    await stops.skip_command(desk.connection, ACT, placed.sequence)
    with pytest.raises(stops.AlreadySkipped):
        await stops.skip_command(desk.connection, ACT, placed.sequence, force=True)
    with pytest.raises(Malformed):
        await stops.resume(desk.connection, stops.Act(0, "tester", " "))
    with pytest.raises(NotFound):
        await stops.resume(desk.connection, stops.Act(9, "tester", "why not"))


async def test_a_record_is_passed_over_by_its_bytes_and_its_place(desk: Desk) -> None:
    await _stop(desk, topic=TOPIC, offset=17, record=b"\xff\x00half")
    [stop] = await stops.read_stops(desk.connection)
    assert (stop.topic, stop.offset, stop.record_bytes) == (TOPIC, 17, 6)
    for topic, offset in ((TOPIC, 16), ("exchange.settlements", 17)):
        with pytest.raises(stops.NotTheRecord):
            await stops.skip_record(desk.connection, ACT, topic, offset)
    await stops.skip_record(desk.connection, ACT, TOPIC, 17)
    for place, record, passed in (
        ((TOPIC, 0, 17), b"\xff\x00half", True),
        ((TOPIC, 0, 17), b"another", False),
        ((TOPIC, 0, 18), b"\xff\x00half", False),
        ((TOPIC, 1, 17), b"\xff\x00half", False),
        (("exchange.settlements", 0, 17), b"\xff\x00half", False),
    ):
        assert await stops.is_passed(desk.connection, *place, record) is passed
    assert len(await stops.read_passed(desk.connection, TOPIC, 0)) == 1
    with pytest.raises(stops.NotStopped):
        await stops.skip_record(desk.connection, ACT, TOPIC, 17)


async def test_only_the_leader_of_now_is_believed_that_it_stopped(desk: Desk) -> None:
    said = (desk.connection, 0, stops.MATCHING, "broken")
    assert await stops.stop(*said, token=TOKEN)
    await stops.resume(desk.connection, ACT)
    assert not await stops.stop(*said, token=TOKEN)
    assert await stops.read_stops(desk.connection) == []
    assert await stops.stop(*said, token=TOKEN + 1)


async def test_an_act_ends_the_lease_and_the_next_leader_has_it_at_once(desk: Desk) -> None:
    await desk.connection.execute("UPDATE partition_leader_locks SET expires_at = now()")
    async with PostgresLeases(desk.url, "old") as old, PostgresLeases(desk.url, "new") as new:
        lease = await old.acquire(stops.MATCHING, 0, 30.0)
        assert lease is not None
        assert await new.acquire(stops.MATCHING, 0, 30.0) is None
        await _stop(desk, token=lease.token)
        await stops.resume(desk.connection, ACT)
        assert (await new.look(stops.MATCHING, [0]))[0] is Standing.VACANT
        assert not await old.renew(lease, 30.0)
        with anyio.fail_after(5):
            taken = await new.acquire(stops.MATCHING, 0, 30.0)
        assert taken is not None
        assert taken.token == lease.token + 2
        await old.release(lease)
        assert await new.renew(taken, 30.0)
