"""Compares what the clients were told with the exchange at rest, through its public API alone."""

import random
from collections.abc import Mapping, Sequence
from functools import partial

import anyio
from anyio import to_thread

from tests.chaos.client import Client
from tests.chaos.judgement import Market, Seen, Verdict, judge_markets, judge_users, wrong_picture
from tests.chaos.public import everything, get
from tests.chaos.told import Accepted, Account, Json, Told, atoms, fill_of

_SAMPLE = 40  # Orders of each user that are also looked up one by one, each in both ways.
_PUBLIC_S = 15.0  # Books, trades and candles follow what is settled; this long after the rest at most.


async def compare(told: Told, port: int, rng: random.Random) -> Verdict:
    """The load rests and everything accepted is carried out. Comparing runs beside the loop."""
    verdict = Verdict()
    seen = [await _see(account, port, rng, verdict) for account in told.accounts]
    markets = await _markets(port)
    await to_thread.run_sync(partial(judge_users, told, seen, markets, verdict))
    await _pictures(seen, verdict)
    last_s = anyio.current_time() + _PUBLIC_S
    while True:
        public = Verdict()
        await to_thread.run_sync(partial(judge_markets, seen, markets, public))
        if public.wrong.count == 0 or anyio.current_time() > last_s:
            break
        await anyio.sleep(0.5)
        markets = await _markets(port)
    verdict.candles, verdict.levels = public.candles, public.levels
    for what in public.wrong.first:
        verdict.wrong.add(what)
    return verdict


async def _pictures(seen: Sequence[Seen], verdict: Verdict) -> None:
    """What each client believes of its live orders, from its stream alone, is what there is.

    An update that nobody told leaves a picture wrong for ever; one that is under way comes soon.
    """
    with anyio.move_on_after(_PUBLIC_S):
        while any(wrong_picture(one) for one in seen):
            await anyio.sleep(0.2)
    for one in seen:
        for what in wrong_picture(one):
            verdict.wrong.add(what)


async def _see(account: Account, port: int, rng: random.Random, verdict: Verdict) -> Seen:
    async with Client(port, account.token) as client:
        orders = await everything(client, "/api/v1/orders", "orders")
        fills = await everything(client, "/api/v1/fills", "fills")
        accounts = await get(client, "/api/v1/accounts")
        await _look_up(client, account, {order["order_id"]: order for order in orders}, rng, verdict)
    balances = {row["asset"]: (atoms(row["available"]), atoms(row["held"])) for row in accounts}
    return Seen(account, orders, [fill_of(row) for row in fills], balances)


async def _look_up(
    client: Client, account: Account, listed: Mapping[str, Json], rng: random.Random, verdict: Verdict
) -> None:
    """Some of what was promised, by id and by client_order_id: the same as in the list."""
    promised = [sent for sent in account.sent.values() if isinstance(sent.answer, Accepted)]
    for sent in rng.sample(promised, min(_SAMPLE, len(promised))):
        assert isinstance(sent.answer, Accepted)
        order_id = sent.answer.order_id
        by_id = await get(client, f"/api/v1/orders/{order_id}")
        by_name = (await get(client, f"/api/v1/orders?client_order_id={sent.client_order_id}"))["orders"]
        verdict.looked_up += 1
        if not ([by_id] == by_name == [listed.get(order_id)]):
            verdict.wrong.add(
                f"{sent}: by id {by_id}, by client_order_id {by_name}, listed {listed.get(order_id)}"
            )


async def _markets(port: int) -> list[Market]:
    async with Client(port) as client:
        return [
            Market(
                row["symbol"],
                row["base"],
                row["quote"],
                row["maker_fee_bps"],
                row["taker_fee_bps"],
                await get(client, f"/api/v1/orderbook?symbol={row['symbol']}&depth=1000"),
                await get(client, f"/api/v1/klines?symbol={row['symbol']}&interval=1m&limit=1000"),
                await get(client, f"/api/v1/trades?symbol={row['symbol']}&limit=1000"),
            )
            for row in await get(client, "/api/v1/markets")
        ]
