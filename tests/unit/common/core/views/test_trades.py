from common.core.messages import Side
from common.core.views import PublicTrade, TradeTape


def trade(trade_id: int) -> PublicTrade:
    return PublicTrade(1, trade_id, 100, 1, Side.BUY, trade_id * 1_000)


def test_the_newest_come_first_and_the_oldest_leave() -> None:
    tape = TradeTape(3, [trade(1), trade(2)])
    assert tape.add(trade(3))
    assert tape.add(trade(4))
    assert tape.newest(2) == [trade(4), trade(3)]
    assert tape.newest(9) == [trade(4), trade(3), trade(2)]
    assert tape.newest(0) == []


def test_repeats_are_dropped_and_holes_counted() -> None:
    tape = TradeTape(10)
    assert tape.missing(50) == 0
    assert tape.add(trade(50))
    assert not tape.add(trade(50))
    assert not tape.add(trade(49))
    assert (tape.missing(51), tape.missing(54), tape.missing(50)) == (0, 3, 0)
    assert tape.last_trade_id == 50
