"""The engine against the naive model: same trades, same orders, same books, after every batch."""

from hypothesis import given, settings

from common.core.engine import Engine
from common.core.messages import Applied, Batch, Command, OrderState, Side, Skipped, Trade
from tests.property.flows import SIZES, batches, commands
from tests.property.model import Model, ModelOrder, ModelTrade

EXAMPLES = 400


@settings(max_examples=EXAMPLES)
@given(commands(), SIZES)
def test_engine_and_model_agree(flow: list[Command], sizes: list[int]) -> None:
    engine, model = Engine(0), Model()
    for batch in batches(flow, sizes):
        given_back = {i: order.given_back for i, order in model.orders.items()}
        first_trade = len(model.trades)
        applied = engine.apply(batch)
        for command in batch.commands:
            assert not isinstance(command, Skipped)
            model.do(command)
        assert [_plain(trade) for trade in applied.settlement.trades] == model.trades[first_trade:]
        _same_orders(applied, batch, model, given_back)
        _same_books(engine, model)
        _same_markets(applied, model, first_trade)


def _plain(trade: Trade) -> ModelTrade:
    return ModelTrade(
        trade.market_id,
        trade.trade_id,
        trade.sequence,
        trade.price_ticks,
        trade.qty_lots,
        trade.maker_order_id,
        trade.taker_order_id,
        trade.maker_fee_atoms,
        trade.taker_fee_atoms,
    )


def _same_orders(applied: Applied, batch: Batch, model: Model, given_back: dict[int, int]) -> None:
    changed = [
        _state(order, order.given_back - given_back.get(order_id, 0))
        for order_id, order in sorted(model.orders.items())
        if order.touched >= batch.first_sequence
    ]
    assert applied.settlement.orders == changed


def _state(order: ModelOrder, released: int) -> OrderState:
    place = order.place
    return OrderState(
        place.order_id,
        place.user_id,
        place.market_id,
        place.client_order_id,
        place.side,
        order.status,
        order.reason,
        order.filled,
        order.filled_quote,
        order.fee,
        order.held,
        released,
        order.touched,
    )


def _same_books(engine: Engine, model: Model) -> None:
    """Levels, queues, what each order holds, and that no book is crossed."""
    books = {book.market_id: book for book in engine.books()}
    assert books.keys() == model.markets.keys()
    for market_id, book in books.items():
        assert book.bids == model.levels(market_id, Side.BUY)
        assert book.asks == model.levels(market_id, Side.SELL)
        assert not book.bids or not book.asks or book.bids[0][0] < book.asks[0][0]
    live = engine.snapshot().orders
    expected = [
        (order.place.order_id, order.left, model.need(order), order.sequence)
        for market_id in sorted(books)
        for side in (Side.BUY, Side.SELL)
        for order in sorted(
            model.resting(market_id, side), key=lambda order: (order.place.price_ticks, order.sequence)
        )
    ]
    assert [(o.order_id, o.qty_lots - o.filled_lots, o.held_atoms, o.sequence) for o in live] == expected


def _same_markets(applied: Applied, model: Model, first_trade: int) -> None:
    for state in applied.settlement.markets:
        market = model.markets[state.market_id]
        trades = [trade for trade in model.trades if trade.market_id == state.market_id]
        assert (state.status, state.maker_fee_bps) == (market.status, market.maker_fee_bps)
        assert state.taker_fee_bps == market.taker_fee_bps
        assert state.next_trade_id == len(trades) + 1
        assert state.last_price_ticks == (trades[-1].price if trades else 0)
    traded = {trade.market_id for trade in model.trades[first_trade:]}
    listed = [state.market_id for state in applied.settlement.markets]
    assert traded <= set(listed)
    assert listed == sorted(set(listed))
