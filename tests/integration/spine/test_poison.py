"""Poison on real servers: it stops its partition alone, people see where, and a skip lets it go on."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from functools import partial
from time import time_ns

import anyio
import pytest

from common.core import messages as m
from common.core.sequencing import chain_of
from common.kafka_reader import Record
from common.replay import replay
from common.topics import topics
from common.wire import encode_commands
from daemons.local.cli import main
from daemons.local.prepare import default_markets
from daemons.local.servers import Servers
from exchange.v1 import types_pb2 as ty
from tests.harness.exchange import Exchange, running_exchange
from tests.integration.spine.spine import BUY, MATCHINGS, ORDER_SERVICE, SELL, Spine, order

pytestmark = pytest.mark.anyio

PRICE, LOTS = 5_000_000, 1_000
WHY = ("--reason", "poison of a test", "--operator", "tester")
_STOPPED = "SELECT service, topic, kafka_offset, sequence FROM partition_stops WHERE partition = 0"


@pytest.fixture(scope="module")
def half_exchange(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    """One of this module's own: other tests send again whatever lies in the topics of theirs."""
    with running_exchange(servers, tmp_path_factory.mktemp("poison"), ready=False) as exchange:
        exchange.start(ORDER_SERVICE, *MATCHINGS)
        yield exchange


class Operator:
    """Types `exchange partition ...` against the exchange of the test."""

    def __init__(self, captured: pytest.CaptureFixture[str]) -> None:
        self._captured = captured

    async def __call__(self, *words: str) -> str:
        self._captured.readouterr()
        code = await anyio.to_thread.run_sync(partial(main, ["partition", *words]))
        out, error = self._captured.readouterr()
        assert code == 0, error
        return out


@pytest.fixture
def operator(spine: Spine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Operator:
    monkeypatch.setenv("EXCHANGE_POSTGRES_URL", spine.exchange.settings.postgres_url)
    return Operator(capfd)


@pytest.fixture
async def user(spine: Spine) -> AsyncIterator[int]:
    """Somebody with nothing open before and after; then the log gives the same once more."""
    user = await spine.join()
    await spine.settled()
    yield user
    await spine.cancel_all(user)
    await spine.check()
    report = await replay(spine.connection, points=3, seed=1, progress=print)
    assert report.differences.first == []


async def _stopped(spine: Spine) -> tuple[object, ...]:
    """Wait until partition 0 is stopped; gives service, topic, offset and sequence."""

    async def is_stopped() -> bool:
        return bool(await spine.rows(_STOPPED))

    await spine.until(is_stopped)
    [row] = await spine.rows(_STOPPED)
    return row


async def _poison(spine: Spine, topic: str, value: bytes) -> int:
    """Put it at the end of partition 0 with the leader's token; gives its offset."""
    _, token = await spine.leader("matching", 0)
    return await spine.kafka.send(getattr(topics(spine.exchange.settings), topic), 0, value, token=token)


async def _others_trade(spine: Spine) -> None:
    """ETH-USD is in partition 1."""
    maker, taker = await spine.join(), await spine.join()
    await spine.place(maker, order(BUY, 300_000, 100, symbol="ETH-USD"))
    [sold] = await spine.place(taker, order(SELL, 300_000, 100, symbol="ETH-USD"))

    async def filled() -> bool:
        return (await spine.order(taker, sold.order_id)).status == ty.ORDER_STATUS_FILLED

    await spine.until(filled)


def _half(record: Record) -> bytes:
    return record.value[: len(record.value) // 2]


@pytest.mark.parametrize("kind", ["garbage", "half"])
@pytest.mark.parametrize("topic", ["orders", "settlements"])
async def test_a_record_that_cannot_be_read_stops_its_partition_alone(
    spine: Spine, operator: Operator, user: int, topic: str, kind: str
) -> None:
    [first] = await spine.place(user, order(BUY, PRICE, LOTS))
    await spine.settled()
    poison = b"\xff\xfepoison" if kind == "garbage" else _half((await spine.records(topic, 0))[-1])
    offset = await _poison(spine, topic, poison)
    service = {"orders": "matching", "settlements": "settlement"}[topic]
    name = getattr(topics(spine.exchange.settings), topic)
    assert (await _stopped(spine))[:3] == (service, name, offset)
    [second] = await spine.place(user, order(BUY, PRICE, LOTS))
    await _others_trade(spine)
    assert (await spine.order(user, second.order_id)).status == ty.ORDER_STATUS_ACCEPTED
    text = await operator("show")
    assert f"at the record {name}:{offset} ({len(poison)} bytes)" in text
    assert f"PLACE order {second.order_id} of user {user}: BUY LIMIT GTC" in text
    assert text.count("STOPPED") == 1

    await operator("skip", "0", "--record", f"{name}:{offset}", *WHY)
    await spine.settled()
    for accepted in (first, second):
        assert (await spine.order(user, accepted.order_id)).status == ty.ORDER_STATUS_OPEN
    assert json.loads(await operator("show", "0", "--json"))[0]["acts"][0]["record_bytes"] == len(poison)


async def test_a_restart_passes_over_the_same_record(spine: Spine, operator: Operator, user: int) -> None:
    """The leader reads from far back, and the settler from where it had told everything."""
    name = topics(spine.exchange.settings).orders
    offset = await _poison(spine, "orders", b"")
    await _stopped(spine)
    await operator("skip", "0", "--record", f"{name}:{offset}", *WHY)
    [accepted] = await spine.place(user, order(BUY, PRICE, LOTS))
    await spine.settled()
    await spine.rows("UPDATE watermarks SET orders_offset = -1 WHERE partition = 0 RETURNING 1")
    for daemon in (*MATCHINGS, ORDER_SERVICE):
        spine.exchange.kill(daemon)
        spine.exchange.start(daemon)
    [second] = await spine.place(user, order(BUY, PRICE, LOTS))
    await spine.settled()
    assert await spine.rows(_STOPPED) == []
    for one in (accepted, second):
        assert (await spine.order(user, one.order_id)).status == ty.ORDER_STATUS_OPEN


async def test_tx2_stops_where_the_database_contradicts_and_goes_on_when_it_is_mended(
    spine: Spine, operator: Operator, user: int
) -> None:
    [accepted] = await spine.place(user, order(BUY, PRICE, LOTS))
    await spine.settled()
    change = "UPDATE orders SET held_atoms = held_atoms + %s WHERE order_id = %s RETURNING 1"
    await spine.rows(change, 5, accepted.order_id)
    await spine.cancel(user, accepted.order_id)
    service, _, _, sequence = await _stopped(spine)
    assert (service, sequence) == ("settlement", accepted.sequence + 1)
    text = await operator("show", "0")
    assert f"the commands {sequence} to {sequence}: TX2 is impossible: order {accepted.order_id}" in text
    assert f"{sequence}  CANCEL order {accepted.order_id} of user {user}" in text
    await _others_trade(spine)
    await spine.rows(change, -5, accepted.order_id)
    await operator("resume", "0", *WHY)
    await spine.settled()
    assert (await spine.order(user, accepted.order_id)).status == ty.ORDER_STATUS_CANCELED


async def test_a_command_that_every_engine_has_applied_can_still_be_skipped(
    spine: Spine, operator: Operator, user: int
) -> None:
    """Standbys are warm: they have applied what TX2 then refuses, and must unlearn it."""
    [rests] = await spine.place(user, order(SELL, PRICE, LOTS))
    await spine.settled()
    move = (
        "UPDATE accounts SET (available_atoms, held_atoms) = (available_atoms + %s, held_atoms - %s)"
        " WHERE (user_id, asset_id) = (%s, 2) RETURNING 1"
    )
    await spine.rows(move, 5, 5, user)  # What the trade would take from the held is not there.
    other = await spine.join()
    [crosses] = await spine.place(other, order(BUY, PRICE, LOTS))
    assert (await _stopped(spine))[0] == "settlement"
    assert "PostgreSQL refused it" in await operator("show")
    await operator("skip", "0", "--sequence", str(crosses.sequence), *WHY)
    await spine.settled()
    skipped = await spine.order(other, crosses.order_id)
    assert (skipped.status, skipped.reason) == (ty.ORDER_STATUS_CANCELED, ty.REASON_OPERATOR_SKIP)
    await spine.rows(move, -5, -5, user)
    assert (await spine.order(user, rests.order_id)).status == ty.ORDER_STATUS_OPEN
    [bought] = await spine.place(other, order(BUY, PRICE, LOTS))
    await spine.settled()
    assert (await spine.order(other, bought.order_id)).status == ty.ORDER_STATUS_FILLED


async def test_a_command_that_no_engine_can_apply_is_skipped(
    spine: Spine, operator: Operator, user: int
) -> None:
    """Fees that TX1 would refuse: more than what is received."""
    first, orders = await _write_impossible(spine, user)
    service, topic, _, sequence = await _stopped(spine)
    assert (service, topic) == ("matching", topics(spine.exchange.settings).orders)
    assert sequence == first
    text = await operator("show", "0")
    assert f"commands {first} to {first + 2} cannot be applied" in text
    assert f"{first}  SET MARKET BTC-USD: ACTIVE, fees 2147483647/2147483647 bps" in text
    await _others_trade(spine)
    await operator("skip", "0", "--sequence", str(first), *WHY)
    await spine.settled()
    for trader, order_id in orders:
        assert (await spine.order(trader, order_id)).status == ty.ORDER_STATUS_FILLED
    states = await spine.rows("SELECT maker_fee_bps, taker_fee_bps FROM market_states WHERE market_id = 1")
    assert states == [(10, 20)]


_SHARD = "SELECT last_sequence, last_time_us, chain FROM shards WHERE partition = 0 FOR NO KEY UPDATE"
_HOLD = """
UPDATE accounts SET (available_atoms, held_atoms) = (available_atoms - %s, held_atoms + %s)
WHERE (user_id, asset_id) = (%s, %s)
"""
_ORDER = """
INSERT INTO orders (order_id, user_id, market_id, partition, sequence, side, type, time_in_force, post_only,
    stp, price_ticks, qty_lots, quote_atoms, hold_atoms, created_us, status, held_atoms, updated_us)
VALUES (%s, %s, %s, 0, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 1, %s, %s)
"""
_OUTBOX = "INSERT INTO outbox VALUES (0, %s, %s, %s, %s, %s, %s)"
_COUNT_ON = "UPDATE shards SET (last_sequence, last_time_us, chain) = (%s, %s, %s) WHERE partition = 0"


async def _write_impossible(spine: Spine, user: int) -> tuple[int, list[tuple[int, int]]]:
    """What TX1 would write if it let such fees through; gives the first sequence, and (user, order id)s."""
    [(block,)] = await spine.rows("SELECT nextval('order_ids')")
    assert isinstance(block, int)
    market = next(one for one in default_markets(4) if one.symbol == "BTC-USD")
    kind = (m.OrderType.LIMIT, m.TimeInForce.GTC, False, m.SelfTradePrevention.CANCEL_TAKER)
    lots = 10 * 10**8 // market.lot_atoms
    other = await spine.join()
    sale = m.Place(block, user, 1, m.Side.SELL, *kind, PRICE, lots, 0, lots * market.lot_atoms)
    paid_atoms = PRICE * lots * market.atoms_per_tick_lot
    buy = m.Place(block + 1, other, 1, m.Side.BUY, *kind, PRICE, lots, 0, paid_atoms)
    fees = m.SetMarket(replace(market, maker_fee_bps=2**31 - 1, taker_fee_bps=2**31 - 1))
    connection = spine.connection
    async with connection.transaction():
        row = await (await connection.execute(_SHARD)).fetchone()
        assert row is not None
        last_sequence, last_time_us, chain = row
        first = int(last_sequence) + 1
        time_us, data = max(last_time_us + 1, time_ns() // 1_000), encode_commands([fees, sale, buy])
        after = chain_of(chain, first, time_us, data)
        for sequence, place, asset in ((first + 1, sale, market.base), (first + 2, buy, market.quote)):
            await connection.execute(
                _HOLD, [place.hold_atoms, place.hold_atoms, place.user_id, asset.asset_id]
            )
            ids = (place.order_id, place.user_id, place.market_id, sequence)
            words = (place.side, place.type, place.time_in_force, False, place.stp)
            sizes = (place.price_ticks, place.qty_lots, place.quote_atoms, place.hold_atoms)
            await connection.execute(_ORDER, [*ids, *words, *sizes, time_us, place.hold_atoms, time_us])
        await connection.execute(_OUTBOX, [first, first + 2, time_us, chain, after, data])
        await connection.execute(_COUNT_ON, [first + 2, time_us, after])
    return first, [(user, sale.order_id), (other, buy.order_id)]
