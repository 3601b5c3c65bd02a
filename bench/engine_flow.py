"""The flow of `bench.engine`: commands that keep a book of a given size as it is, made from a seed.

Of 100 commands

60 are GTC limit orders that rest: 25 of them within `NEAR_TICKS` of the middle, where trading is, and 35
   anywhere in the book;
35 cancel an order that rests, any of them, for its owner (one in some dozens was swept in the same batch);
 5 are IOC limit orders that sweep: each takes the lots of about five resting orders, over several levels.

So as many orders leave as come, and about half of all orders trade. Sizes are 10 to 100 lots, users 1,000,
three orders a level on average; markets take turns at random, and a batch of 500 commands has some of each.
"""

from collections.abc import Iterable
from random import Random

from common.core.engine import ENGINE_VERSION, Engine
from common.core.messages import (
    GENESIS_CHAIN,
    Asset,
    Batch,
    Cancel,
    Command,
    LiveOrder,
    Market,
    MarketState,
    MarketStatus,
    OrderState,
    OrderStatus,
    OrderType,
    Place,
    SelfTradePrevention,
    Side,
    Snapshot,
    TimeInForce,
)

BATCH = 500
USERS = 1_000
NEAR_TICKS = 8
ORDERS_A_LEVEL = 3
SWEPT = 5
MIDDLE_TICKS = 5_000_000
# One lot is 1,000 base atoms and costs 10 quote atoms a tick.
LOT_ATOMS, TICK_LOT_ATOMS = 1_000, 10
LIVE = (OrderStatus.OPEN, OrderStatus.PARTIALLY_FILLED)
PARTITION = 0


class Flow:
    """Books of `live` orders in `markets` markets, as a snapshot, and the commands that follow."""

    def __init__(self, seed: int, live: int, markets: int) -> None:
        self._random = Random(seed)
        self._markets = markets
        self._depth_ticks = NEAR_TICKS + live // (2 * markets * ORDERS_A_LEVEL)
        self._next_id = 1
        self._owners: dict[int, int] = {}  # Of the orders that rest, by order id.
        self._resting: list[int] = []  # Their ids, in no order, with some that have ended.
        self.snapshot = self._begin(live)

    def batches(self, engine: Engine, commands: int) -> list[Batch]:
        """The next commands in batches; the engine, restored from the snapshot, tells what rests."""
        made = []
        for _ in range(0, commands, BATCH):
            first = engine.sequence + 1
            chain = first.to_bytes(32, "big")
            batch = Batch(
                PARTITION, first, first, engine.chain, chain, [self._command() for _ in range(BATCH)]
            )
            self._learn(engine.apply(batch).settlement.orders)
            made.append(batch)
        return made

    def _begin(self, live: int) -> Snapshot:
        orders = [self._live_order(sequence) for sequence in range(1, live + 1)]
        orders.sort(key=lambda order: (order.market_id, order.side, order.price_ticks, order.sequence))
        for order in orders:
            self._owners[order.order_id] = order.user_id
            self._resting.append(order.order_id)
        markets = [_market(market_id) for market_id in range(1, self._markets + 1)]
        states = [
            MarketState(market.market_id, MarketStatus.ACTIVE, 10, 20, 1, MIDDLE_TICKS) for market in markets
        ]
        return Snapshot(PARTITION, live, GENESIS_CHAIN, live, ENGINE_VERSION, markets, states, orders)

    def _live_order(self, sequence: int) -> LiveOrder:
        place = self._rest(1, self._depth_ticks)
        return LiveOrder(
            place.order_id,
            place.user_id,
            place.market_id,
            place.client_order_id,
            place.side,
            place.price_ticks,
            place.qty_lots,
            0,
            0,
            0,
            place.hold_atoms,
            sequence,
        )

    def _command(self) -> Command:
        dice = self._random.random()
        if dice < 0.25:
            return self._rest(1, NEAR_TICKS)
        if dice < 0.60:
            return self._rest(1, self._depth_ticks)
        if dice < 0.95:
            return self._cancel()
        lots = sum(self._random.randint(10, 100) for _ in range(SWEPT))
        side = self._side()
        return self._place(side, self._price(side, -self._depth_ticks), lots, TimeInForce.IOC)

    def _rest(self, nearest_ticks: int, farthest_ticks: int) -> Place:
        side = self._side()
        price_ticks = self._price(side, self._random.randint(nearest_ticks, farthest_ticks))
        return self._place(side, price_ticks, self._random.randint(10, 100), TimeInForce.GTC)

    def _cancel(self) -> Command:
        while True:
            place = self._random.randrange(len(self._resting))
            order_id, self._resting[place] = self._resting[place], self._resting[-1]
            self._resting.pop()
            user_id = self._owners.pop(order_id, None)
            if user_id is not None:
                return Cancel(order_id, user_id)

    def _place(self, side: Side, price_ticks: int, lots: int, time_in_force: TimeInForce) -> Place:
        order_id, self._next_id = self._next_id, self._next_id + 1
        hold_atoms = lots * (price_ticks * TICK_LOT_ATOMS if side is Side.BUY else LOT_ATOMS)
        return Place(
            order_id,
            self._random.randint(1, USERS),
            self._random.randint(1, self._markets),
            side,
            OrderType.LIMIT,
            time_in_force,
            False,
            SelfTradePrevention.CANCEL_TAKER,
            price_ticks,
            lots,
            0,
            hold_atoms,
            f"c{order_id}",
        )

    def _side(self) -> Side:
        return Side.BUY if self._random.random() < 0.5 else Side.SELL

    def _price(self, side: Side, away_ticks: int) -> int:
        return MIDDLE_TICKS + (-away_ticks if side is Side.BUY else away_ticks)

    def _learn(self, states: Iterable[OrderState]) -> None:
        for state in states:
            if state.status not in LIVE:
                self._owners.pop(state.order_id, None)
            elif state.order_id not in self._owners:
                self._owners[state.order_id] = state.user_id
                self._resting.append(state.order_id)


def _market(market_id: int) -> Market:
    base, quote = Asset(2, "BTC", 8), Asset(1, "USD", 8)
    return Market(market_id, f"M{market_id}-USD", base, quote, PARTITION, 1_000_000, LOT_ATOMS, 10**8, 10, 20)
