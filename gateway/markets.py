"""The markets, asked for every two seconds and kept in between.

What is kept may be that old: a halted market is refused by the engine, not here, and units never change.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import trio

from common.core.errors import ExchangeError, Unavailable, UnknownSymbol
from common.core.messages import Asset, Market
from common.telemetry import get_logger
from gateway.forms import Form, FormKey

REFRESH_S = 2.0

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MarketTable:
    """The markets as they were at one moment."""

    by_symbol: dict[str, Market] = field(default_factory=dict)
    by_id: dict[int, Market] = field(default_factory=dict)
    assets: dict[int, Asset] = field(default_factory=dict)
    _forms: dict[FormKey, Form] = field(default_factory=dict)  # Made as orders ask for them.

    @classmethod
    def of(cls, markets: Iterable[Market]) -> "MarketTable":
        table = cls()
        for market in markets:
            table.by_symbol[market.symbol] = market
            table.by_id[market.market_id] = market
            for asset in (market.base, market.quote):
                table.assets[asset.asset_id] = asset
        return table

    def market(self, symbol: str) -> Market:
        """The market of this symbol; raises UnknownSymbol."""
        market = self.by_symbol.get(symbol)
        if market is None:
            raise UnknownSymbol("There is no such market.", {"symbol": symbol[:40]})
        return market

    def form(self, key: FormKey) -> Form:
        """The form of orders of this kind; raises UnknownSymbol. There are few kinds of few markets."""
        form = self._forms.get(key)
        if form is None:
            form = self._forms[key] = Form(self.market(key[0]), key)
        return form

    def of_id(self, market_id: int) -> Market:
        """The market that an order or a fill is in; raises Unavailable when it is newer than the table."""
        market = self.by_id.get(market_id)
        if market is None:
            raise Unavailable("A market of this answer is not known yet.")
        return market


class Markets:
    """Keeps a MarketTable fresh while `run` runs."""

    def __init__(self, fetch: Callable[[], Awaitable[list[Market]]]) -> None:
        self._fetch = fetch
        self._table: MarketTable | None = None

    @property
    def known(self) -> bool:
        return self._table is not None

    @property
    def table(self) -> MarketTable:
        """The newest table; raises Unavailable before the first one."""
        if self._table is None:
            raise Unavailable("The markets are not known yet.")
        return self._table

    async def refresh(self) -> None:
        """Ask once; raises what the call raises."""
        self._table = MarketTable.of(await self._fetch())

    async def run(self) -> None:
        """Refresh for ever. While nobody answers, the last table stays."""
        failing = False
        while True:
            try:
                await self.refresh()
                failing = False
            except ExchangeError as error:
                if not failing:
                    log.warning("markets not refreshed", error=error.message, known=self.known)
                failing = True
            await trio.sleep(REFRESH_S if self.known else REFRESH_S / 10)
