"""What operators change of the exchange: markets, users, tokens. Deposits stand in `money`.

These write no audit log: `common.acts` does, around them. A market is changed by a command in its
partition's sequence, like everything that the engine knows.
"""

import hashlib
import secrets
from dataclasses import dataclass, replace

from common.core.errors import Conflict, UnknownSymbol
from common.core.messages import Asset, Command, Market, MarketStatus, SetMarket
from common.core.units import check_market
from common.db import Connection
from common.identity.permissions import ALL
from common.money import deposit as deposit
from common.sequence import take, write
from common.wire import decode_commands

_MARKETS = """
SELECT m.market_id, m.symbol, b.asset_id, b.symbol, b.scale, q.asset_id, q.symbol, q.scale, m.partition,
       m.tick_atoms, m.lot_atoms, m.min_notional_atoms,
       coalesce(s.maker_fee_bps, m.maker_fee_bps), coalesce(s.taker_fee_bps, m.taker_fee_bps),
       coalesce(s.status, 1), coalesce(s.last_price_ticks, 0)
FROM markets m
JOIN assets b ON b.asset_id = m.base_asset_id
JOIN assets q ON q.asset_id = m.quote_asset_id
LEFT JOIN market_states s USING (market_id)
ORDER BY m.market_id
"""

_PENDING = """
SELECT o.commands FROM outbox o JOIN watermarks w USING (partition)
WHERE partition = %s AND o.first_sequence > w.sequence ORDER BY o.first_sequence DESC
"""

_USERS = """
SELECT u.user_id, u.name, count(t.token_sha256) FILTER (WHERE t.revoked_at IS NULL)
FROM users u LEFT JOIN tokens t USING (user_id) WHERE u.user_id > %s
GROUP BY u.user_id ORDER BY u.user_id LIMIT %s
"""


async def list_markets(connection: Connection) -> list[tuple[Market, int]]:
    """Every market as the engine sees it at the watermark, with its last price in ticks (0: none)."""
    cursor = await connection.execute(_MARKETS)
    return [_market(row) for row in await cursor.fetchall()]


def _market(row: tuple[object, ...]) -> tuple[Market, int]:
    ids: list[int] = [value if isinstance(value, int) else 0 for value in row]
    market = Market(
        market_id=ids[0],
        symbol=str(row[1]),
        base=Asset(ids[2], str(row[3]), ids[4]),
        quote=Asset(ids[5], str(row[6]), ids[7]),
        partition=ids[8],
        tick_atoms=ids[9],
        lot_atoms=ids[10],
        min_notional_atoms=ids[11],
        maker_fee_bps=ids[12],
        taker_fee_bps=ids[13],
        status=MarketStatus(ids[14]),
    )
    return market, ids[15]


async def create_market(connection: Connection, market: Market) -> bool:
    """Create the market and its assets; False when it exists already with the same units."""
    check_market(market)
    async with connection.transaction():
        await connection.execute("LOCK TABLE markets IN SHARE ROW EXCLUSIVE MODE")
        for known, _ in await list_markets(connection):
            if known.symbol == market.symbol or known.market_id == market.market_id:
                return _same_units(known, market)
        for asset in (market.base, market.quote):
            await connection.execute(
                "INSERT INTO assets (asset_id, symbol, scale) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                [asset.asset_id, asset.symbol, asset.scale],
            )
        await connection.execute(
            "INSERT INTO markets (market_id, symbol, base_asset_id, quote_asset_id, partition, tick_atoms,"
            " lot_atoms, min_notional_atoms, maker_fee_bps, taker_fee_bps)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                market.market_id,
                market.symbol,
                market.base.asset_id,
                market.quote.asset_id,
                market.partition,
                market.tick_atoms,
                market.lot_atoms,
                market.min_notional_atoms,
                market.maker_fee_bps,
                market.taker_fee_bps,
            ],
        )
        for asset in (market.base, market.quote):
            await _open_account(connection, -(market.partition + 1), asset.asset_id)
        await _send(connection, market.partition, SetMarket(market))
    return True


def _same_units(known: Market, market: Market) -> bool:
    def units(of: Market) -> tuple[object, ...]:
        return of.market_id, of.symbol, of.base, of.quote, of.partition, of.tick_atoms, of.lot_atoms

    if units(known) != units(market):
        raise Conflict(f"{market.symbol} (or its id {market.market_id}) exists with other units")
    return False


async def set_market(
    connection: Connection,
    symbol: str,
    *,
    status: MarketStatus | None = None,
    maker_fee_bps: int | None = None,
    taker_fee_bps: int | None = None,
) -> int:
    """Change fees or status; gives the sequence of the command, which the watermark passes when it holds."""
    async with connection.transaction():
        for market, _ in await list_markets(connection):
            if market.symbol == symbol:
                place = await take(connection, market.partition)
                last = await _newest(connection, market)
                changed = replace(
                    last,
                    status=last.status if status is None else status,
                    maker_fee_bps=last.maker_fee_bps if maker_fee_bps is None else maker_fee_bps,
                    taker_fee_bps=last.taker_fee_bps if taker_fee_bps is None else taker_fee_bps,
                )
                check_market(changed)
                await write(connection, place, [SetMarket(changed)])
                return place.first_sequence
    raise UnknownSymbol(f"There is no market {symbol}")


async def _newest(connection: Connection, market: Market) -> Market:
    """The market as the last command of its partition leaves it, which the engine may not have seen yet.

    Under the lock of the partition's row, so that no other change comes between. What is pending is
    looked at first: should it be settled meanwhile, the second look finds it.
    """
    cursor = await connection.execute(_PENDING, [market.partition])
    for (body,) in await cursor.fetchall():
        for command in reversed(decode_commands(body)):
            if isinstance(command, SetMarket) and command.market.market_id == market.market_id:
                return command.market
    return next(now for now, _ in await list_markets(connection) if now.market_id == market.market_id)


async def _send(connection: Connection, partition: int, command: Command) -> int:
    place = await take(connection, partition)
    await write(connection, place, [command])
    return place.first_sequence


async def create_user(connection: Connection, name: str) -> int:
    cursor = await connection.execute(
        "INSERT INTO users (user_id, name) VALUES (nextval('user_ids'), %s) RETURNING user_id", [name]
    )
    return _int(await cursor.fetchone())


@dataclass(frozen=True, slots=True)
class User:
    """A user and how many of their tokens have not been revoked."""

    user_id: int
    name: str
    tokens: int


async def list_users(connection: Connection, after_user_id: int = 0, limit: int | None = None) -> list[User]:
    """By id, those after one of them; the exchange's own (fees) are none."""
    cursor = await connection.execute(_USERS, [max(0, after_user_id), limit])
    return [User(int(row[0]), str(row[1]), int(row[2])) for row in await cursor.fetchall()]


async def create_token(connection: Connection, user_id: int, permissions: int = ALL) -> str:
    """A new bearer token; only its SHA-256 is kept, so this is the one time that it can be read."""
    token = secrets.token_urlsafe(32)
    await connection.execute(
        "INSERT INTO tokens (token_sha256, user_id, permissions) VALUES (%s, %s, %s)",
        [token_sha256(token), user_id, permissions],
    )
    return token


def token_sha256(token: str) -> bytes:
    """A fast hash is enough: a token has 256 random bits, so there is nothing to guess."""
    return hashlib.sha256(token.encode()).digest()


async def revoke_tokens(connection: Connection, user_id: int) -> int:
    """Every token of the user ends; daemons notice within `token_cache_s`."""
    cursor = await connection.execute(
        "UPDATE tokens SET revoked_at = clock_timestamp() WHERE user_id = %s AND revoked_at IS NULL",
        [user_id],
    )
    return cursor.rowcount


async def _open_account(connection: Connection, user_id: int, asset_id: int) -> None:
    await connection.execute(
        "INSERT INTO accounts (user_id, asset_id) VALUES (%s, %s) ON CONFLICT DO NOTHING", [user_id, asset_id]
    )


def _int(row: tuple[object, ...] | None) -> int:
    assert row is not None
    assert isinstance(row[0], int)
    return row[0]
