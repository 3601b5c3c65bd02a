"""What a check is, and what several of them count and join."""

# ruff: noqa: S608  # The queries are put together from constants of this package.

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """`looked_at` counts rows; `violations` selects what breaks the rule that `name` states."""

    name: str
    looked_at: str
    violations: str


COUNT_LOG = "(SELECT count(*) FROM outbox) + (SELECT count(*) FROM outbox_archive)"
COUNT_ORDERS, COUNT_TRADES = "count(*) FROM orders", "count(*) FROM trades"
COUNT_LEDGER, COUNT_ACCOUNTS = "count(*) FROM ledger", "count(*) FROM accounts"

GENESIS = "decode(repeat('00', 32), 'hex')"
LOG = """
    SELECT partition, first_sequence, last_sequence, time_us, previous_chain, chain FROM outbox UNION ALL
    SELECT partition, first_sequence, last_sequence, time_us, previous_chain, chain FROM outbox_archive
"""

# What an order that rests must hold for what it has left; exact, because tick and lot divide (units).
_PRICE_OF_LOT = "m.tick_atoms::numeric * m.lot_atoms / 10::numeric ^ b.scale"
MARKETS = f"""
    (SELECT m.*, {_PRICE_OF_LOT} AS atoms_per_tick_lot
     FROM markets m JOIN assets b ON b.asset_id = m.base_asset_id) m
"""
