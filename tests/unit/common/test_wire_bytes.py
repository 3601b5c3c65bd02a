"""The very bytes of what is stored, compared and replayed: as they were first written, for ever (I4)."""

from common import wire
from common.core import messages as m

TRADES = [
    m.Trade(1, 9, 1_001, 100, 3, m.Side.BUY, 40, 50, 4, 5, 11, 22),
    m.Trade(2, 2**40, 1_004, 2**50, 1, m.Side.SELL, 41, 51, 6, 7, 0, 2**62),
]
ORDERS = [
    m.OrderState(
        *(40, 4, 1, "", m.Side.SELL, m.OrderStatus.PARTIALLY_FILLED, m.Reason.NONE, 3, 300, 11, 7, 0, 1_001)
    ),
    m.OrderState(50, 5, 1, "n-1", m.Side.BUY, m.OrderStatus.FILLED, m.Reason.NONE, 3, 300, 22, 0, 1, 1_001),
    m.OrderState(
        *(51, 7, 2, "ü", m.Side.SELL, m.OrderStatus.CANCELED, m.Reason.SELF_TRADE, 0, 0, 0, 0, 2**63 - 1),
        1_004,
    ),
]
SETTLEMENT = m.Settlement(
    *(3, 1_000, 1_004, 1_700_000_000_000_000, bytes(range(32)), bytes(range(32, 64)), 1, TRADES, ORDERS),
    [
        m.MarketState(1, m.MarketStatus.ACTIVE, 10, 20, 10, 100),
        m.MarketState(2, m.MarketStatus.HALTED, 0, 5_000, 1, 0),
    ],
    [m.BookDigest(1, bytes(32)), m.BookDigest(2, b"\x07" * 32)],
)
USD, BTC = m.Asset(1, "USD", 8), m.Asset(2, "BTC", 8)
MARKETS = {number: m.Market(number, "X", BTC, USD, 3, 10**6, 1_000, 10**8, 10, 20) for number in (1, 2)}

SETTLEMENT_BYTES = bytes.fromhex(
    "080310e80718ec07208080f9c0c1c482032a20000102030405060708090a0b0c0d0e0f1011121314"
    "15161718191a1b1c1d1e1f3220202122232425262728292a2b2c2d2e2f303132333435363738393a"
    "3b3c3d3e3f380142190801100918e9072064280330013828403248045005580b6016422b08021080"
    "808080802018ec07208080808080808002280130023829403348065007608080808080808080404a"
    "1608281004180128023003400348ac02500b580768e9074a1b08321005180122036e2d3128013004"
    "400348ac025016600168e9074a1d0833100718022202c3bc28023005380260ffffffffffffffff7f"
    "68ec07520c08011001180a2014280a306452090802100220882728015a2408011220"
    "0000000000000000000000000000000000000000000000000000000000000000"
    "5a24080212200707070707070707070707070707070707070707070707070707070707070707"
)
UPDATES_HEAD = bytes.fromhex("080310e80718ec07208080f9c0c1c48203")
UPDATES = [
    bytes.fromhex(
        "2a350a1608281004180128023003400348ac02500b580768e907121b080910281801200228643003380b40014801508080"
        "f9c0c1c48203"
    ),
    bytes.fromhex(
        "2a3a0a1b08321005180122036e2d3128013004400348ac025016600168e907121b08091032180120012864300338164002"
        "4802508080f9c0c1c48203"
    ),
    bytes.fromhex(
        "2a500a1d0833100718022202c3bc28023005380260ffffffffffffffff7f68ec07122f0880808080802010331802200228"
        "808080808080800230013880808080808080804040014802508080f9c0c1c48203"
    ),
]


def test_a_settlement() -> None:
    assert wire.encode_settlement(SETTLEMENT) == SETTLEMENT_BYTES
    assert wire.decode_settlement(SETTLEMENT_BYTES) == SETTLEMENT


def test_order_updates_in_one_record_and_in_parts() -> None:
    assert list(wire.encode_order_updates(SETTLEMENT, MARKETS)) == [UPDATES_HEAD + b"".join(UPDATES)]
    assert list(wire.encode_order_updates(SETTLEMENT, MARKETS, 1)) == [UPDATES_HEAD + one for one in UPDATES]


def test_public_trades_and_books() -> None:
    data = wire.encode_trades(partition=3, last_sequence=1_004, trades=TRADES, time_us=8)
    assert data.hex() == (
        "080310ec071a0c0801100918642003280130081a18080210808080808020188080808080808002200128023008"
    )
    update = m.BookUpdate(1, False, 9, 8, 7, [(100, 3), (99, 0)], [(101, 2**40)], 5)
    assert wire.encode_book(update).hex() == "0801180920082807320408641003320208633a090865108080808080204005"
