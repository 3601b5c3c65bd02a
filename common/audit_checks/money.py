"""Money: what accounts own and hold, and why; what came from outside and went there, and who did it."""

# ruff: noqa: S608  # The queries are put together from constants of this package.

from common.audit_checks.check import (
    COUNT_ACCOUNTS,
    COUNT_LEDGER,
    COUNT_TRADES,
    GENESIS,
    MARKETS,
    Check,
)

_PAYS = "CASE WHEN o.side = 1 THEN m.quote_asset_id ELSE m.base_asset_id END"
# Each trade as what it gives to and takes from the buyer, the seller and the fee account (-1, -2, ...).
_MOVED = f"""
    SELECT v.user_id, v.asset_id, sum(v.atoms) AS atoms FROM (
        SELECT CASE t.taker_side WHEN 1 THEN t.taker_user_id ELSE t.maker_user_id END AS buyer,
               CASE t.taker_side WHEN 1 THEN t.maker_user_id ELSE t.taker_user_id END AS seller,
               CASE t.taker_side WHEN 1 THEN t.taker_fee_atoms ELSE t.maker_fee_atoms END AS buyer_fee,
               CASE t.taker_side WHEN 1 THEN t.maker_fee_atoms ELSE t.taker_fee_atoms END AS seller_fee,
               m.base_asset_id AS base, m.quote_asset_id AS quote, (-t.partition - 1)::bigint AS fees,
               t.qty_lots::numeric * m.lot_atoms AS base_atoms,
               t.price_ticks::numeric * t.qty_lots * m.atoms_per_tick_lot AS quote_atoms
        FROM trades t JOIN {MARKETS} USING (market_id)) t
    CROSS JOIN LATERAL (VALUES
        (buyer, base, base_atoms - buyer_fee), (buyer, quote, -quote_atoms),
        (seller, base, -base_atoms), (seller, quote, quote_atoms - seller_fee),
        (fees, base, buyer_fee), (fees, quote, seller_fee)) v (user_id, asset_id, atoms)
    GROUP BY 1, 2
"""

MONEY_CHECKS = (
    Check(
        "every ledger row says what it is of",
        COUNT_LEDGER,
        """
        SELECT ledger_id, kind, partition, sequence, reference, user_id, asset_id, delta_atoms FROM ledger
        WHERE NOT coalesce(CASE kind
            WHEN 1 THEN reference IS NOT NULL AND (delta_atoms < 0) = (user_id = 0)
            WHEN 2 THEN reference IS NOT NULL AND (delta_atoms > 0) = (user_id = 0)
            WHEN 3 THEN partition IS NOT NULL AND sequence IS NOT NULL AND user_id <> 0
            END, false) OR delta_atoms = 0
        """,
    ),
    Check(
        "every ledger transaction sums to zero",
        COUNT_LEDGER,
        """
        SELECT kind, partition, sequence, reference, asset_id, sum(delta_atoms) FROM ledger
        GROUP BY kind, partition, sequence, reference, asset_id HAVING sum(delta_atoms) <> 0
        """,
    ),
    Check(
        "every asset sums to zero in the ledger",
        COUNT_LEDGER,
        "SELECT asset_id, sum(delta_atoms) FROM ledger GROUP BY asset_id HAVING sum(delta_atoms) <> 0",
    ),
    Check(
        "the ledger's trades are what the trades moved, per account",
        COUNT_TRADES,
        f"""
        SELECT user_id, asset_id, l.atoms AS ledger_atoms, t.atoms AS trades_atoms FROM (
            SELECT user_id, asset_id, sum(delta_atoms) AS atoms FROM ledger WHERE kind = 3 GROUP BY 1, 2) l
        FULL JOIN ({_MOVED}) t USING (user_id, asset_id)
        WHERE coalesce(l.atoms, 0) <> coalesce(t.atoms, 0)
        """,
    ),
    Check(
        "available + held = deposits - withdrawals, per asset",
        COUNT_ACCOUNTS,
        """
        SELECT asset_id, a.atoms AS accounts_atoms, l.atoms AS deposits_less_withdrawals FROM (
            SELECT asset_id, sum(available_atoms::numeric + held_atoms) AS atoms FROM accounts GROUP BY 1) a
        FULL JOIN (SELECT asset_id, sum(delta_atoms) AS atoms FROM ledger
                   WHERE kind IN (1, 2) AND user_id <> 0 GROUP BY 1) l USING (asset_id)
        WHERE coalesce(a.atoms, 0) <> coalesce(l.atoms, 0)
        """,
    ),
    Check(
        "every balance is the sum of its ledger rows",
        COUNT_ACCOUNTS,
        """
        SELECT user_id, asset_id, a.available_atoms, a.held_atoms, l.atoms AS ledger_atoms
        FROM accounts a FULL JOIN (SELECT user_id, asset_id, sum(delta_atoms) AS atoms FROM ledger
                                   WHERE user_id <> 0 GROUP BY 1, 2) l USING (user_id, asset_id)
        WHERE coalesce(a.available_atoms::numeric + a.held_atoms, 0) <> coalesce(l.atoms, 0)
        """,
    ),
    Check(
        "held is what the live orders and the pending withdrawals hold, per account",
        COUNT_ACCOUNTS,
        f"""
        SELECT user_id, asset_id, a.held_atoms, h.atoms AS orders_and_withdrawals_hold_atoms
        FROM accounts a FULL JOIN (
            SELECT user_id, asset_id, sum(atoms) AS atoms FROM (
                SELECT o.user_id, {_PAYS} AS asset_id, o.held_atoms AS atoms
                FROM orders o LEFT JOIN markets m USING (market_id) WHERE o.status <= 3
                UNION ALL SELECT user_id, asset_id, atoms FROM withdrawals WHERE status = 1) each
            GROUP BY 1, 2) h
        USING (user_id, asset_id)
        WHERE coalesce(a.held_atoms, 0) <> coalesce(h.atoms, 0)
        """,
    ),
    Check(
        "no balance is negative",
        COUNT_ACCOUNTS,
        """
        SELECT user_id, asset_id, available_atoms, held_atoms FROM accounts
        WHERE available_atoms < 0 OR held_atoms < 0
        """,
    ),
)

# What comes from outside and goes there, and who did it.
OUTSIDE_CHECKS = (
    Check(
        "every deposit and every completed withdrawal moved its amount once, and nothing else did",
        "(SELECT count(*) FROM deposits) + (SELECT count(*) FROM withdrawals)",
        """
        SELECT kind, reference, user_id, asset_id, w.atoms, l.delta_atoms FROM (
            SELECT 1 AS kind, reference, user_id, asset_id, atoms FROM deposits UNION ALL
            SELECT 2, 'withdrawal ' || withdrawal_id, user_id, asset_id, -atoms FROM withdrawals
            WHERE status = 2) w
        FULL JOIN (SELECT * FROM ledger WHERE kind IN (1, 2) AND user_id <> 0) l
        USING (kind, reference, user_id, asset_id)
        WHERE coalesce(w.atoms, 0) <> coalesce(l.delta_atoms, 0)
        """,
    ),
    Check(
        "what is issued of an asset is deposits - withdrawals",
        "count(*) FROM assets",
        """
        SELECT asset_id, a.issued_atoms, l.atoms AS deposits_less_withdrawals FROM assets a
        LEFT JOIN (SELECT asset_id, sum(delta_atoms) AS atoms FROM ledger
                   WHERE kind IN (1, 2) AND user_id <> 0 GROUP BY 1) l USING (asset_id)
        WHERE a.issued_atoms <> coalesce(l.atoms, 0)
        """,
    ),
    Check(
        "the audit log is whole: every row's hash covers it and the one before",
        "count(*) FROM audit_log",
        f"""
        SELECT entry_id, at, actor, act, target FROM (
            SELECT a.*, audit_log_hash(a) AS made, row_number() OVER w AS place,
                   lag(hash, 1, {GENESIS}) OVER w AS hash_before
            FROM audit_log a WINDOW w AS (ORDER BY entry_id)) entries
        WHERE (entry_id, previous_hash, hash) <> (place, hash_before, made)
        """,
    ),
)
