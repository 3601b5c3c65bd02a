"""Random command flows, small enough that everything meets everything."""

from random import Random

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
LIMIT_KINDS = (
    (TimeInForce.GTC, False),
    (TimeInForce.GTC, False),
    (TimeInForce.GTC, False),
    (TimeInForce.GTC, True),
    (TimeInForce.IOC, False),
    (TimeInForce.FOK, False),
)
FEES_BPS = (0, 1, 10, 20, 5000)
# In market 1 a lot costs 21 atoms a tick, in market 2 it costs 2: both small, so that fees round.
UNITS = {1: (BTC, 7, 3), 2: (ETH, 4, 5)}


def market(market_id: int, maker_bps: int = 10, taker_bps: int = 20, *, halted: bool = False) -> Market:
    base, tick_atoms, lot_atoms = UNITS[market_id]
    status = MarketStatus.HALTED if halted else MarketStatus.ACTIVE
    symbol = f"{base.symbol}-USD"
    return Market(market_id, symbol, base, USD, 0, tick_atoms, lot_atoms, 1, maker_bps, taker_bps, status)


def place(random: Random, order_id: int) -> Place:
    """Any order that TX1 would let through, with the hold that it would make."""
    market_id = random.choice((1, 1, 1, 2))
    cost_atoms, lot_atoms = (21, 3) if market_id == 1 else (2, 5)
    side = random.choice(list(Side))
    order_type = random.choice((OrderType.LIMIT, OrderType.LIMIT, OrderType.LIMIT, OrderType.MARKET))
    qty_lots, quote_atoms = random.randint(1, 8), 0
    price_ticks = random.randint(5, 10) if side is Side.BUY else random.randint(7, 12)
    hold_atoms = price_ticks * qty_lots * cost_atoms
    if order_type is OrderType.LIMIT:
        tif, post_only = random.choice(LIMIT_KINDS)
    else:
        tif, post_only = random.choice((TimeInForce.IOC, TimeInForce.FOK)), False
        hold_atoms, price_ticks = (hold_atoms * 105 + 99) // 100, 0
        if side is Side.BUY and random.random() < 0.5:
            # Whole lots now and then, so that the money and the book run out together.
            whole = cost_atoms * random.randint(5, 100)
            quote_atoms = hold_atoms = random.choice((whole, random.randint(1, 2_500)))
            qty_lots = 0
    if side is Side.SELL:
        hold_atoms = qty_lots * lot_atoms
    return Place(
        order_id,
        random.randint(1, 4),
        market_id,
        side,
        order_type,
        tif,
        post_only,
        random.choice(list(SelfTradePrevention)),
        price_ticks,
        qty_lots,
        quote_atoms,
        hold_atoms,
        f"c{order_id}",
    )


def flow_of(random: Random, count: int) -> list[Command]:
    """Both markets set, then mostly orders, with cancels, halts, fee changes and skips among them."""
    made: list[Command] = [SetMarket(market(1, random.choice(FEES_BPS), random.choice(FEES_BPS)))]
    made.append(SetMarket(market(2)))
    order_id = 0
    for _ in range(count):
        dice, user_id = random.random(), random.randint(1, 4)
        if dice < 0.82:
            order_id += 1
            made.append(place(random, order_id))
        elif dice < 0.93:
            made.append(Cancel(random.randint(1, max(1, order_id)), user_id))
        elif dice < 0.95:
            made.append(CancelAll(user_id, random.choice((0, 1, 2, 9))))
        elif dice < 0.98:
            halted = random.random() < 0.3
            made.append(SetMarket(market(1, random.choice(FEES_BPS), random.choice(FEES_BPS), halted=halted)))
        else:
            made.append(Noop(0, "skipped"))
    return made


def commands() -> st.SearchStrategy[list[Command]]:
    """Short flows, which shrink well, and long ones from a seed, which build deep books."""
    short = st.builds(flow_of, st.randoms(use_true_random=False), st.integers(1, 12))
    seeds = st.integers(0, 2**32 - 1)
    return short | st.builds(lambda seed, count: flow_of(Random(seed), count), seeds, st.integers(20, 150))


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
