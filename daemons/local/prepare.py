"""What an exchange needs before its daemons start: schema, topics, and in a new one the two markets."""

from common.admin import create_market
from common.config import Settings
from common.core.messages import Asset, Market
from common.db import connect
from common.migrate import migrate
from common.topics import ensure_topics
from daemons.local.process import Progress

USD, BTC, ETH = Asset(1, "USD", 8), Asset(2, "BTC", 8), Asset(3, "ETH", 8)
_USD_ATOMS = 10**USD.scale
_CENT = _USD_ATOMS // 100
_MAKER_BPS, _TAKER_BPS = 10, 20


def default_markets(partitions: int) -> list[Market]:
    """BTC-USD and ETH-USD; each in a partition of its own where there are two."""
    return [
        Market(1, "BTC-USD", BTC, USD, 0, _CENT, 1_000, _USD_ATOMS, _MAKER_BPS, _TAKER_BPS),
        Market(2, "ETH-USD", ETH, USD, 1 % partitions, _CENT, 10_000, _USD_ATOMS, _MAKER_BPS, _TAKER_BPS),
    ]


async def prepare(settings: Settings, progress: Progress) -> None:
    """Bring schema, topics and markets to what this version needs; may be run again at any time."""
    for name in await migrate(settings.postgres_url, settings.partitions):
        progress(f"Applied the migration {name}")
    await ensure_topics(settings)
    async with connect(settings.postgres_url, "exchange prepare") as connection:
        cursor = await connection.execute("SELECT EXISTS (SELECT FROM markets)")
        if await cursor.fetchone() == (True,):
            return  # Whoever has an exchange decides on its markets.
        for market in default_markets(settings.partitions):
            await create_market(connection, market)
            progress(f"Created the market {market.symbol}")
