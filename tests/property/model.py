"""A naive exchange that judges the engine: lists, searched from the start, one command at a time.

It shares no code with the engine. Every rule is written as plainly as it can be said: the best maker
is found by sorting, a fill-or-kill order is tried on a copy, and holds are what is left to pay.
"""

from copy import deepcopy
from dataclasses import dataclass, field

from common.core.messages import (
    Cancel,
    CancelAll,
    Command,
    Market,
    MarketStatus,
    OrderStatus,
    OrderType,
    Place,
    Reason,
    SelfTradePrevention,
    SetMarket,
    Side,
    TimeInForce,
)


@dataclass
class ModelTrade:
    market_id: int
    trade_id: int
    sequence: int
    price: int
    lots: int
    maker: int
    taker: int
    maker_fee: int
    taker_fee: int


@dataclass
class ModelOrder:
    place: Place
    sequence: int
    touched: int
    status: OrderStatus = OrderStatus.ACCEPTED
    reason: Reason = Reason.NONE
    filled: int = 0
    paid: int = 0  # Out of the hold.
    received: int = 0
    fee: int = 0
    given_back: int = 0

    @property
    def left(self) -> int:
        return self.place.qty_lots - self.filled

    @property
    def held(self) -> int:
        return self.place.hold_atoms - self.paid - self.given_back

    @property
    def filled_quote(self) -> int:
        return self.paid if self.place.side is Side.BUY else self.received

    @property
    def resting(self) -> bool:
        return self.status in (OrderStatus.OPEN, OrderStatus.PARTIALLY_FILLED)


@dataclass
class Model:
    markets: dict[int, Market] = field(default_factory=dict)
    orders: dict[int, ModelOrder] = field(default_factory=dict)
    trades: list[ModelTrade] = field(default_factory=list)
    sequence: int = 0

    def do(self, command: Command) -> None:
        self.sequence += 1
        if isinstance(command, SetMarket):
            self.markets[command.market.market_id] = deepcopy(command.market)
        elif isinstance(command, Place):
            order = ModelOrder(command, self.sequence, self.sequence)
            self.orders[command.order_id] = order
            self._place(order)
        elif isinstance(command, Cancel):
            self._cancel([command.order_id], command.user_id)
        elif isinstance(command, CancelAll):
            every = [i for i, o in self.orders.items() if command.market_id in (0, o.place.market_id)]
            self._cancel(every, command.user_id)

    def resting(self, market_id: int, side: Side) -> list[ModelOrder]:
        """Best first: by price, then by sequence."""
        found = [
            order
            for order in self.orders.values()
            if order.resting and order.place.market_id == market_id and order.place.side is side
        ]
        sign = 1 if side is Side.SELL else -1
        return sorted(found, key=lambda order: (sign * order.place.price_ticks, order.sequence))

    def levels(self, market_id: int, side: Side) -> list[tuple[int, int]]:
        totals: dict[int, int] = {}
        for order in self.resting(market_id, side):
            totals[order.place.price_ticks] = totals.get(order.place.price_ticks, 0) + order.left
        return list(totals.items())

    def _cancel(self, order_ids: list[int], user_id: int) -> None:
        for order_id in order_ids:
            order = self.orders.get(order_id)
            if order is not None and order.resting and order.place.user_id == user_id:
                self._end(order, OrderStatus.CANCELED, Reason.USER_REQUEST)

    def _end(self, order: ModelOrder, status: OrderStatus, reason: Reason = Reason.NONE) -> None:
        order.given_back += order.held
        order.status, order.reason, order.touched = status, reason, self.sequence

    def _place(self, order: ModelOrder) -> None:
        place = order.place
        market = self.markets.get(place.market_id)
        if market is None or market.status is MarketStatus.HALTED:
            return self._end(order, OrderStatus.REJECTED, Reason.MARKET_HALTED)
        makers = self._makers(place)
        if place.post_only and makers:
            return self._end(order, OrderStatus.REJECTED, Reason.POST_ONLY_WOULD_CROSS)
        if place.time_in_force is TimeInForce.FOK:
            trial = deepcopy(self)
            trial._match(trial.orders[place.order_id])
            if trial.orders[place.order_id].status is not OrderStatus.FILLED:
                return self._end(order, OrderStatus.EXPIRED, Reason.FOK_NOT_FILLABLE)
        return self._match(order)

    def _makers(self, place: Place) -> list[ModelOrder]:
        """Whom the order crosses, best first."""
        if place.side is Side.BUY:
            asks = self.resting(place.market_id, Side.SELL)
            return [
                o for o in asks if place.type is OrderType.MARKET or o.place.price_ticks <= place.price_ticks
            ]
        bids = self.resting(place.market_id, Side.BUY)
        return [o for o in bids if place.type is OrderType.MARKET or o.place.price_ticks >= place.price_ticks]

    def _match(self, order: ModelOrder) -> None:
        place = order.place
        market = self.markets[place.market_id]
        by_quote = place.quote_atoms > 0
        while by_quote or order.left > 0:
            makers = self._makers(place)
            if not makers:
                return self._book_ran_out(order, by_quote)
            maker = makers[0]
            cost = maker.place.price_ticks * market.tick_atoms * market.lot_atoms // 10**market.base.scale
            if place.side is Side.BUY and order.held < cost:
                if by_quote and order.filled:
                    return self._end(order, OrderStatus.FILLED)
                return self._end(order, OrderStatus.CANCELED, Reason.HOLD_EXHAUSTED)
            if maker.place.user_id == place.user_id:
                if place.stp in (SelfTradePrevention.CANCEL_MAKER, SelfTradePrevention.CANCEL_BOTH):
                    self._end(maker, OrderStatus.CANCELED, Reason.SELF_TRADE)
                if place.stp in (SelfTradePrevention.CANCEL_TAKER, SelfTradePrevention.CANCEL_BOTH):
                    return self._end(order, OrderStatus.CANCELED, Reason.SELF_TRADE)
                continue
            self._trade_one_price(market, maker, order, cost, by_quote)
        return self._end(order, OrderStatus.FILLED)

    def _book_ran_out(self, order: ModelOrder, by_quote: bool) -> None:
        place = order.place
        if by_quote and order.held == 0:
            return self._end(order, OrderStatus.FILLED)
        if place.type is OrderType.MARKET or place.time_in_force is not TimeInForce.GTC:
            return self._end(order, OrderStatus.EXPIRED, Reason.UNFILLED_REMAINDER)
        order.status = OrderStatus.PARTIALLY_FILLED if order.filled else OrderStatus.OPEN
        order.given_back += order.held - self.need(order)
        return None

    def need(self, order: ModelOrder) -> int:
        """What a resting order has still to pay at its own price."""
        market = self.markets[order.place.market_id]
        if order.place.side is Side.SELL:
            return order.left * market.lot_atoms
        one = order.place.price_ticks * market.tick_atoms * market.lot_atoms
        need: int = order.left * one // 10**market.base.scale
        return need

    def _trade_one_price(
        self, market: Market, maker: ModelOrder, taker: ModelOrder, cost: int, by_quote: bool
    ) -> None:
        lots = 0
        while lots < maker.left and (by_quote or lots < taker.left):
            if taker.place.side is Side.BUY and (lots + 1) * cost > taker.held:
                break
            lots += 1
        quote, base = lots * cost, lots * market.lot_atoms
        fees = {}
        for order, bps in ((maker, market.maker_fee_bps), (taker, market.taker_fee_bps)):
            buying = order.place.side is Side.BUY
            order.paid += quote if buying else base
            received = base if buying else quote
            fee = next(f for f in range(received + 1) if f * 10_000 >= received * bps)
            order.received += received
            order.filled += lots
            order.fee += fee
            order.touched = self.sequence
            fees[order.place.order_id] = fee
        price = maker.place.price_ticks
        trade_id = 1 + sum(trade.market_id == market.market_id for trade in self.trades)
        maker_id, taker_id = maker.place.order_id, taker.place.order_id
        self.trades.append(
            ModelTrade(
                market.market_id,
                trade_id,
                self.sequence,
                price,
                lots,
                maker_id,
                taker_id,
                fees[maker_id],
                fees[taker_id],
            )
        )
        maker.status = OrderStatus.PARTIALLY_FILLED
        if maker.left == 0:
            self._end(maker, OrderStatus.FILLED)
