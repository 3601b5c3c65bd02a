"""Random command flows, small enough that everything meets everything."""

from hypothesis import strategies as st

from common.core.messages import (
    GENESIS_CHAIN,
    Asset,
    Batch,
    Cancel,
    CancelAll,
    Command,
    Market,
    MarketStatus,
    Noop,
    OrderType,
    Place,
    SelfTradePrevention,
    SetMarket,
    Side,
    TimeInForce,
)

USD, BTC, ETH = Asset(1, "USD", 2), Asset(2, "BTC", 0), Asset(3, "ETH", 1)
USERS = st.integers(1, 3)
# In market 1 a lot costs 21 atoms a tick, in market 2 it costs 2: both small, so that fees round.
UNITS = {1: (BTC, 7, 3), 2: (ETH, 4, 5)}


def market(market_id: int, maker_bps: int = 10, taker_bps: int = 20, *, halted: bool = False) -> Market:
    base, tick_atoms, lot_atoms = UNITS[market_id]
    status = MarketStatus.HALTED if halted else MarketStatus.ACTIVE
    symbol = f"{base.symbol}-USD"
    return Market(market_id, symbol, base, USD, 0, tick_atoms, lot_atoms, 1, maker_bps, taker_bps, status)


@st.composite
def places(draw: st.DrawFn, order_id: int) -> Place:
    market_id = draw(st.sampled_from((1, 1, 1, 2)))
    side = draw(st.sampled_from(Side))
    type = draw(st.sampled_from((OrderType.LIMIT, OrderType.LIMIT, OrderType.MARKET)))
    cost_atoms, lot_atoms = (21, 3) if market_id == 1 else (2, 5)
    qty_lots, price_ticks, quote_atoms = draw(st.integers(1, 8)), draw(st.integers(5, 12)), 0
    stp = draw(st.sampled_from(SelfTradePrevention))
    if type is OrderType.LIMIT:
        tif, post_only = draw(
            st.sampled_from(
                (
                    (TimeInForce.GTC, False),
                    (TimeInForce.GTC, False),
                    (TimeInForce.GTC, True),
                    (TimeInForce.IOC, False),
                    (TimeInForce.FOK, False),
                )
            )
        )
        hold_atoms = price_ticks * qty_lots * cost_atoms
    else:
        tif, post_only = draw(st.sampled_from((TimeInForce.IOC, TimeInForce.FOK))), False
        hold_atoms = (price_ticks * qty_lots * cost_atoms * 105 + 99) // 100
        price_ticks = 0
        if side is Side.BUY and draw(st.booleans()):
            # Exact multiples now and then, so that the money runs out with the book.
            exact = draw(st.booleans())
            quote_atoms = hold_atoms = (
                cost_atoms * draw(st.integers(5, 100)) if exact else draw(st.integers(1, 2500))
            )
            qty_lots = 0
    if side is Side.SELL:
        hold_atoms = qty_lots * lot_atoms
    return Place(
        order_id,
        draw(USERS),
        market_id,
        side,
        type,
        tif,
        post_only,
        stp,
        price_ticks,
        qty_lots,
        quote_atoms,
        hold_atoms,
        f"c{order_id}",
    )


@st.composite
def commands(draw: st.DrawFn, most: int = 40) -> list[Command]:
    """Both markets set, then mostly orders, with cancels, halts, fee changes and skips among them."""
    kinds = st.sampled_from(("place",) * 14 + ("cancel",) * 4 + ("all", "set", "noop"))
    bps = st.sampled_from((0, 1, 10, 20, 5000))
    made: list[Command] = [SetMarket(market(1, draw(bps), draw(bps))), SetMarket(market(2))]
    order_id = 0
    for kind in draw(st.lists(kinds, min_size=1, max_size=most)):
        if kind == "place":
            order_id += 1
            made.append(draw(places(order_id)))
        elif kind == "cancel":
            made.append(Cancel(draw(st.integers(1, max(1, order_id))), draw(USERS)))
        elif kind == "all":
            made.append(CancelAll(draw(USERS), draw(st.sampled_from((0, 1, 2, 9)))))
        elif kind == "set":
            halted = draw(st.sampled_from((False, False, True)))
            made.append(SetMarket(market(1, draw(bps), draw(bps), halted=halted)))
        else:
            made.append(Noop(0, "skipped"))
    return made


def batches(flow: list[Command], sizes: list[int]) -> list[Batch]:
    """Cut the flow into batches of the given sizes, over and over, with a chain of a kind."""
    made: list[Batch] = []
    at, chain = 0, GENESIS_CHAIN
    while at < len(flow):
        part = flow[at : at + sizes[len(made) % len(sizes)]]
        following = (at + len(part)).to_bytes(32, "big")
        made.append(Batch(0, at + 1, 1_000_000 + at, chain, following, part))
        at, chain = at + len(part), following
    return made


SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=4)
