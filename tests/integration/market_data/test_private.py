"""Private channels: to their owner alone, nothing missed around the snapshot, gone with the token."""

import anyio
import pytest

from common.core.messages import OrderStatus
from exchange.v1 import types_pb2
from tests.integration.market_data.stand import Client, Stand, live_order, order_state

pytestmark = pytest.mark.anyio

ALICE, BOB = 1001, 1002


@pytest.fixture(autouse=True)
def users(stand: Stand) -> None:
    stand.orders.tokens = {"alice-token": ALICE, "bob-token": BOB}


async def signed_in(client: Client, token: str, *channels: str) -> None:
    user_id = str({"alice-token": ALICE, "bob-token": BOB}[token])
    assert await client.ask(op="auth", token=token, id=7) == {
        "op": "authenticated",
        "user_id": user_id,
        "id": 7,
    }
    if channels:
        await client.subscribe(*channels)


async def test_nobody_gets_in_without_a_valid_token(stand: Stand) -> None:
    async with stand.daemon(), stand.client() as client:
        for channel in ("orders", "fills", "balances"):
            answer = await client.ask(op="subscribe", channels=[channel], id=channel)
            assert (answer["error"]["code"], answer["id"]) == ("UNAUTHENTICATED", channel)
        assert (await client.ask(op="auth", token="wrong"))["error"]["code"] == "UNAUTHENTICATED"
        assert (await client.ask(op="auth"))["error"]["code"] == "MALFORMED"


async def test_updates_reach_their_owner_alone_and_once(stand: Stand) -> None:
    async with stand.daemon(), stand.client() as alice, stand.client() as bob:
        await signed_in(alice, "alice-token", "orders", "fills")
        await signed_in(bob, "bob-token", "orders", "fills")
        for client in (alice, bob):
            for channel in ("orders", "fills"):
                assert (await client.next(channel))["data"] == []
        trade = stand.next_trade(price=100, qty=2, taker_user_id=ALICE, taker_order_id=5)
        state = order_state(ALICE, 5, OrderStatus.PARTIALLY_FILLED, filled=2, sequence=3)
        await stand.told(3, [state], [trade])
        await stand.told(3, [state], [trade])  # Told again after a crash.
        update = await alice.next("orders")
        assert (update["type"], update["sequence"], update["previous"]) == ("update", 2, 1)
        data = update["data"]
        assert data["last_fill"]["trade_id"] == "1"
        assert {
            key: data[key] for key in ("order_id", "status", "filled_quantity", "sequence", "symbol")
        } == {
            "order_id": "5",
            "status": "PARTIALLY_FILLED",
            "filled_quantity": "0.00002",
            "sequence": 3,
            "symbol": "BTC-USD",
        }
        fill = (await alice.next("fills"))["data"]
        assert (fill["price"], fill["liquidity"], fill["fee_asset"]) == ("1.00", "TAKER", "BTC")
        await alice.quiet("orders")
        await bob.quiet("orders", 0.1)
        await bob.quiet("fills", 0.1)


async def test_an_update_between_reading_and_sending_the_snapshot_is_not_lost(stand: Stand) -> None:
    stand.orders.orders[ALICE] = [
        live_order(ALICE, 5, OrderStatus.PARTIALLY_FILLED, filled=2),
        live_order(ALICE, 6, OrderStatus.OPEN),
    ]
    stand.orders.may_list = anyio.Event()
    async with stand.daemon(), stand.client() as client:
        await signed_in(client, "alice-token", "orders")
        await stand.orders.before_orders.wait()
        await stand.told(1, [order_state(ALICE, 5, OrderStatus.OPEN)])  # Older than the snapshot.
        await stand.told(2, [order_state(ALICE, 5, OrderStatus.PARTIALLY_FILLED, filled=2)])  # In it.
        await stand.told(3, [order_state(ALICE, 5, OrderStatus.PARTIALLY_FILLED, filled=3)])  # Newer.
        await stand.told(4, [order_state(ALICE, 6, OrderStatus.CANCELED)])
        await anyio.sleep(0.3)  # They are here before the snapshot is.
        stand.orders.may_list.set()
        snapshot = await client.next("orders")
        assert snapshot["type"] == "snapshot"
        assert [(order["order_id"], order["status"]) for order in snapshot["data"]] == [
            ("5", "PARTIALLY_FILLED"),
            ("6", "OPEN"),
        ]
        assert (snapshot["data"][0]["price"], snapshot["data"][0]["quantity"]) == ("1.00", "0.00010")
        first, second = await client.next("orders"), await client.next("orders")
        assert (first["data"]["order_id"], first["data"]["filled_quantity"]) == ("5", "0.00003")
        assert (second["data"]["order_id"], second["data"]["status"]) == ("6", "CANCELED")
        assert [message["sequence"] for message in (snapshot, first, second)] == [1, 2, 3]
        await client.quiet("orders", 0.2)


async def test_balances_follow_settlements(stand: Stand) -> None:
    usd = types_pb2.Account(asset_id=1, available_atoms=50 * 10**8, held_atoms=0)
    btc = types_pb2.Account(asset_id=2, available_atoms=10**8, held_atoms=5)
    stand.orders.accounts[ALICE] = [usd, btc]
    async with stand.daemon(), stand.client() as client:
        await signed_in(client, "alice-token", "balances")
        assert (await client.next("balances"))["data"] == [
            {"asset": "USD", "available": "50", "held": "0"},
            {"asset": "BTC", "available": "1", "held": "0.00000005"},
        ]
        stand.orders.accounts[ALICE] = [
            types_pb2.Account(asset_id=1, available_atoms=49 * 10**8, held_atoms=10**8),
            btc,
        ]
        await stand.told(1, [order_state(ALICE, 5, OrderStatus.OPEN)])
        update = await client.next("balances")
        assert update["data"] == {"asset": "USD", "available": "49", "held": "1"}
        await client.quiet("balances", 0.2)


async def test_a_revoked_token_loses_its_private_channels_and_keeps_the_public_ones(stand: Stand) -> None:
    await stand.book(full=True, bids=[(1, 1)])
    async with stand.daemon(), stand.client() as client:
        await signed_in(client, "alice-token", "orders", "depth:BTC-USD")
        await client.next("orders")
        await client.next("depth:BTC-USD")
        del stand.orders.tokens["alice-token"]
        with anyio.fail_after(3):
            assert (await client.next(op=None))["error"]["code"] == "UNAUTHENTICATED"
        assert (await client.next(op=None))["channels"] == ["orders"]
        await stand.told(1, [order_state(ALICE, 5, OrderStatus.OPEN)])
        await client.quiet("orders", 0.3)
        await stand.book(bids=[(1, 2)])
        assert (await client.next("depth:BTC-USD"))["type"] == "update"
        answer = await client.ask(op="subscribe", channels=["fills"])
        assert answer["error"]["code"] == "UNAUTHENTICATED"


async def test_order_service_away_refuses_a_private_channel_and_nothing_else(stand: Stand) -> None:
    await stand.book(full=True, bids=[(1, 1)])
    async with stand.daemon(), stand.client() as client:
        await signed_in(client, "alice-token")
        stand.orders.may_list = anyio.Event()  # It hangs.
        await client.say(op="subscribe", channels=["orders", "depth:BTC-USD"], id=1)
        assert (await client.next(op=None))["op"] == "subscribed"
        assert (await client.next("depth:BTC-USD"))["type"] == "snapshot"
        refused = await client.next(op=None)
        assert refused["error"]["code"] == "UNAVAILABLE"
        assert refused["error"]["details"]["channel"] == "orders"
        stand.orders.may_list.set()
        await client.subscribe("orders")
        assert (await client.next("orders"))["data"] == []


async def test_a_second_sign_in_changes_the_owner(stand: Stand) -> None:
    async with stand.daemon(), stand.client() as client:
        await signed_in(client, "alice-token", "orders")
        await client.next("orders")
        await signed_in(client, "bob-token", "orders")
        await client.next("orders")
        await stand.told(1, [order_state(ALICE, 5, OrderStatus.OPEN), order_state(BOB, 6, OrderStatus.OPEN)])
        assert (await client.next("orders"))["data"]["order_id"] == "6"
        await client.quiet("orders", 0.2)
