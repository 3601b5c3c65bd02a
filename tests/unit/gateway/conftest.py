"""The gateway runs on Trio, so its tests do."""

import pytest

from common.core.messages import Asset, Market
from gateway.markets import MarketTable


@pytest.fixture
def anyio_backend() -> str:
    return "trio"


@pytest.fixture
def table() -> MarketTable:
    """The two markets of a new exchange."""
    usd, btc, eth = Asset(1, "USD", 8), Asset(2, "BTC", 8), Asset(3, "ETH", 8)
    return MarketTable.of(
        [
            Market(1, "BTC-USD", btc, usd, 0, 1_000_000, 1_000, 100_000_000, 10, 20),
            Market(2, "ETH-USD", eth, usd, 1, 1_000_000, 10_000, 100_000_000, 10, 20),
        ]
    )
