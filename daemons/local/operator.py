"""What an operator does to an exchange: `exchange migrate`, `market` and `user`.

They talk to PostgreSQL alone. With the local exchange stopped they start its PostgreSQL for as long as
they need it, under the lock that keeps `exchange up` out. Changes of a market are commands: the engine sees
them in their place among the orders.
"""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from common import admin
from common.config import Settings
from common.core.errors import Conflict, InvalidMarket, NotFound
from common.core.messages import Asset, Market, MarketStatus
from common.core.units import atoms_from_text, atoms_to_text, price_to_text, qty_to_text
from common.db import Connection, connect
from common.migrate import migrate
from daemons.local.ports import free_port
from daemons.local.postgres import embedded_postgres
from daemons.local.process import LocalError, Progress
from daemons.local.record import locked, read_run

_PARTITIONS_BY_MARKETS = """
SELECT s.partition FROM shards s LEFT JOIN markets m USING (partition)
GROUP BY s.partition ORDER BY count(m.market_id), s.partition LIMIT 1
"""


@asynccontextmanager
async def reachable_postgres(settings: Settings, progress: Progress) -> AsyncIterator[str]:
    """The URL of the exchange's PostgreSQL: an external one, the running one, or started for the body."""
    data = Path(settings.data)
    if settings.postgres_url:
        yield settings.postgres_url
    elif (run := read_run(data)) is not None:
        yield run.postgres_url
    elif not (data / "pgdata").exists():
        raise LocalError(
            f"There is no exchange in {data}: name its folder with --data or EXCHANGE_DATA,"
            " or its PostgreSQL with EXCHANGE_POSTGRES_URL"
        )
    else:
        with locked(data):
            async with embedded_postgres(data, free_port(), progress) as (url, _):
                yield url


async def run_migrate(settings: Settings, progress: Progress) -> None:
    async with reachable_postgres(settings, progress) as url:
        applied = await migrate(url, settings.partitions)
    progress("\n".join(f"Applied {name}" for name in applied) or "The schema is up to date.")


async def run_market(arguments: argparse.Namespace, settings: Settings, progress: Progress) -> None:
    async with (
        reachable_postgres(settings, _quiet) as url,
        connect(url, "exchange market") as connection,
    ):
        match arguments.action:
            case "list":
                await _list_markets(connection, progress)
            case "create":
                await _create_market(connection, arguments, progress)
            case "halt":
                await admin.set_market(connection, arguments.symbol, status=MarketStatus.HALTED)
                progress(f"{arguments.symbol} takes cancels only from here on.")
            case "resume":
                await admin.set_market(connection, arguments.symbol, status=MarketStatus.ACTIVE)
                progress(f"{arguments.symbol} trades again from here on.")
            case "set-fees":
                if arguments.maker_fee_bps is None and arguments.taker_fee_bps is None:
                    raise InvalidMarket("Name a fee: --maker-fee-bps, --taker-fee-bps, or both")
                await admin.set_market(
                    connection,
                    arguments.symbol,
                    maker_fee_bps=arguments.maker_fee_bps,
                    taker_fee_bps=arguments.taker_fee_bps,
                )
                progress(f"{arguments.symbol} has the new fees from here on.")


async def run_user(arguments: argparse.Namespace, settings: Settings, progress: Progress) -> None:
    async with (
        reachable_postgres(settings, _quiet) as url,
        connect(url, "exchange user") as connection,
    ):
        match arguments.action:
            case "list":
                await _list_users(connection, progress)
            case "create":
                progress(str(await admin.create_user(connection, arguments.name)))
            case "token":
                await _known_user(connection, arguments.user_id)
                progress(await admin.create_token(connection, arguments.user_id))
            case "revoke":
                await _known_user(connection, arguments.user_id)
                count = await admin.revoke_tokens(connection, arguments.user_id)
                progress(f"{count} tokens of user {arguments.user_id} have ended.")
            case "deposit":
                await _deposit(connection, arguments, progress)


def _quiet(line: str) -> None:
    """The answer of these commands is for programs too, so progress stays out of it."""


async def _list_markets(connection: Connection, progress: Progress) -> None:
    for market, last_price_ticks in await admin.list_markets(connection):
        last = price_to_text(market, last_price_ticks) if last_price_ticks else "-"
        progress(
            f"{market.symbol}  {market.status.name}  partition {market.partition}"
            f"  tick {price_to_text(market, 1)}  lot {qty_to_text(market, 1)}"
            f"  least notional {atoms_to_text(market.quote, market.min_notional_atoms)} {market.quote.symbol}"
            f"  fees {market.maker_fee_bps}/{market.taker_fee_bps} bps  last {last}"
        )


async def _create_market(connection: Connection, arguments: argparse.Namespace, progress: Progress) -> None:
    """The market goes to the partition with the fewest; raises Conflict when the symbol is taken."""
    base_symbol, dash, quote_symbol = arguments.symbol.partition("-")
    if not (dash and base_symbol and quote_symbol):
        raise InvalidMarket(f"{arguments.symbol} is not BASE-QUOTE, such as BTC-USD")
    if arguments.symbol in {market.symbol for market, _ in await admin.list_markets(connection)}:
        raise Conflict(f"There is a market {arguments.symbol} already")
    base = await _asset(connection, base_symbol, arguments.scale, taken=())
    quote = await _asset(connection, quote_symbol, arguments.scale, taken=(base.asset_id,))
    market = Market(
        market_id=await _number(connection, "SELECT coalesce(max(market_id), 0) + 1 FROM markets"),
        symbol=arguments.symbol,
        base=base,
        quote=quote,
        partition=await _number(connection, _PARTITIONS_BY_MARKETS),
        tick_atoms=atoms_from_text(quote, arguments.tick),
        lot_atoms=atoms_from_text(base, arguments.lot),
        min_notional_atoms=atoms_from_text(quote, arguments.min_notional),
        maker_fee_bps=arguments.maker_fee_bps,
        taker_fee_bps=arguments.taker_fee_bps,
    )
    if not await admin.create_market(connection, market):
        raise Conflict(f"There is a market {arguments.symbol} already")
    progress(f"Created {market.symbol} in partition {market.partition}.")


async def _asset(connection: Connection, symbol: str, scale: int, taken: tuple[int, ...]) -> Asset:
    """The asset of this symbol, or a new one with the next free id."""
    cursor = await connection.execute("SELECT asset_id, symbol, scale FROM assets ORDER BY asset_id")
    known = [Asset(int(str(row[0])), str(row[1]), int(str(row[2]))) for row in await cursor.fetchall()]
    for asset in known:
        if asset.symbol == symbol:
            return asset
    return Asset(max([0, *taken, *(asset.asset_id for asset in known)]) + 1, symbol, scale)


async def _list_users(connection: Connection, progress: Progress) -> None:
    cursor = await connection.execute(
        "SELECT u.user_id, u.name, count(t.token_sha256) FILTER (WHERE t.revoked_at IS NULL)"
        " FROM users u LEFT JOIN tokens t USING (user_id) WHERE u.user_id > 0"
        " GROUP BY u.user_id ORDER BY u.user_id"
    )
    for user_id, name, tokens in await cursor.fetchall():
        progress(f"{user_id}  {name}  {tokens} tokens")


async def _deposit(connection: Connection, arguments: argparse.Namespace, progress: Progress) -> None:
    await _known_user(connection, arguments.user_id)
    cursor = await connection.execute(
        "SELECT asset_id, symbol, scale FROM assets WHERE symbol = %s", [arguments.asset]
    )
    row = await cursor.fetchone()
    if row is None:
        raise NotFound(f"There is no asset {arguments.asset}")
    asset = Asset(int(str(row[0])), str(row[1]), int(str(row[2])))
    atoms = atoms_from_text(asset, arguments.amount)
    if await admin.deposit(connection, arguments.user_id, asset.asset_id, atoms, arguments.reference):
        progress(f"Deposited {arguments.amount} {asset.symbol} for user {arguments.user_id}.")
    else:
        progress(f"The deposit {arguments.reference!r} was made before; nothing has changed.")


async def _known_user(connection: Connection, user_id: int) -> None:
    cursor = await connection.execute("SELECT FROM users WHERE user_id = %s AND user_id > 0", [user_id])
    if await cursor.fetchone() is None:
        raise NotFound(f"There is no user {user_id}")


async def _number(connection: Connection, query: str) -> int:
    cursor = await connection.execute(query)
    row = await cursor.fetchone()
    assert row is not None, "the exchange has no partitions: run `exchange migrate`"
    return int(row[0])
