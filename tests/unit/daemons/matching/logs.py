"""A log of batches as records of exchange.orders, and a partition's worth of trading in it."""

from collections.abc import Sequence

from common.core import messages as m
from common.core.sequencing import chain_of
from common.kafka_reader import Record
from common.wire import encode_batch, encode_commands

MARKET = m.Market(
    1, "BTC-USD", m.Asset(2, "BTC", 8), m.Asset(1, "USD", 8), 0, 1_000_000, 1_000, 10**8, 10, 20
)


def log_of(batches: Sequence[Sequence[m.Command]], first_offset: int = 0) -> list[Record]:
    """One record for each batch, from sequence 1 on."""
    records: list[Record] = []
    sequence, chain = 1, m.GENESIS_CHAIN
    for offset, commands in enumerate(batches, first_offset):
        body = encode_commands(commands)
        before, chain = chain, chain_of(chain, sequence, sequence, body)
        value = encode_batch(
            partition=0,
            first_sequence=sequence,
            time_us=sequence,
            previous_chain=before,
            chain=chain,
            commands=body,
        )
        records.append(Record(offset, value, 0, -1))
        sequence += len(commands)
    return records


def limit(order_id: int, user_id: int, side: m.Side, price_ticks: int = 100, lots: int = 10) -> m.Place:
    hold_atoms = lots * price_ticks * 10 if side is m.Side.BUY else lots * 1_000
    return m.Place(
        order_id, user_id, 1, side, m.OrderType.LIMIT, m.TimeInForce.GTC, False,
        m.SelfTradePrevention.CANCEL_TAKER, price_ticks, lots, 0, hold_atoms,
    )  # fmt: skip


def trading(count: int) -> list[list[m.Command]]:
    """A market, then `count` batches in which one user buys what another has just offered."""
    batches: list[list[m.Command]] = [[m.SetMarket(MARKET)]]
    for number in range(count):
        batches.append([limit(2 * number + 1, 1, m.Side.SELL), limit(2 * number + 2, 2, m.Side.BUY)])
    return batches
