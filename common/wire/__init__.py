"""The values of `common.core.messages` as the bytes of `proto/exchange/v1` and back.

The bytes are a pure function of the values (no maps, fields in order), which the hash chain and the
comparison of replays rely on.

    commands      markets and commands: the outbox, exchange.orders
    settlements   what the engine made of a batch, and its parts: exchange.settlements
    views         what market-data reads: exchange.trades, exchange.orderbook, exchange.order_updates
    shared        what these share: Undecodable, the size of a part
"""

from common.wire.commands import (
    decode_batch,
    decode_commands,
    encode_batch,
    encode_commands,
    market_from_proto,
    market_to_proto,
)
from common.wire.settlements import (
    SettlementJoiner,
    decode_settlement,
    encode_settlement,
    order_state_from_proto,
    order_state_to_proto,
    settlement_parts,
)
from common.wire.shared import PART_BYTES, Undecodable
from common.wire.views import (
    decode_book,
    decode_order_updates,
    decode_trades,
    encode_book,
    encode_order_updates,
    encode_trades,
    fills_by_order,
    public_trade,
)

__all__ = [
    "PART_BYTES",
    "SettlementJoiner",
    "Undecodable",
    "decode_batch",
    "decode_book",
    "decode_commands",
    "decode_order_updates",
    "decode_settlement",
    "decode_trades",
    "encode_batch",
    "encode_book",
    "encode_commands",
    "encode_order_updates",
    "encode_settlement",
    "encode_trades",
    "fills_by_order",
    "market_from_proto",
    "market_to_proto",
    "order_state_from_proto",
    "order_state_to_proto",
    "public_trade",
    "settlement_parts",
]
