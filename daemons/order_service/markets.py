"""The markets, as the engine had left them at the watermark when last looked at."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import anyio

from common.admin import list_markets
from common.core.errors import UnknownSymbol
from common.core.messages import Market
from common.db import Pool, is_transient
from common.telemetry import get_logger

REFRESH_S = 1.0

log = get_logger(__name__)


@dataclass(slots=True)
class Markets:
    """Units never change, so a market that is known is right; status and fees may be `REFRESH_S` old."""

    by_symbol: dict[str, Market] = field(default_factory=dict)
    by_id: dict[int, Market] = field(default_factory=dict)
    symbols: dict[int, str] = field(default_factory=dict)

    def fill(self, markets: Iterable[Market]) -> None:
        """Take what was read; a look that began before another's end must not forget what that one found."""
        self.by_id = self.by_id | {market.market_id: market for market in markets}
        self.by_symbol = {market.symbol: market for market in self.by_id.values()}
        self.symbols = {market.market_id: market.symbol for market in self.by_id.values()}

    def named(self, symbol: str) -> Market:
        market = self.by_symbol.get(symbol)
        if market is None:
            raise UnknownSymbol(f"There is no market {symbol[:32]!r}", {"symbol": symbol[:32]})
        return market

    async def load(self, pool: Pool) -> None:
        async with pool.connection() as connection:
            self.fill([market for market, _ in await list_markets(connection)])

    async def keep_fresh(self, pool: Pool) -> None:
        """Look again every `REFRESH_S`; while PostgreSQL is away the last answer stands."""
        while True:
            await anyio.sleep(REFRESH_S)
            try:
                await self.load(pool)
            except Exception as error:
                if not is_transient(error):
                    raise
                log.warning("markets not refreshed", error=str(error))
