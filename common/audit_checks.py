"""What must be true of the tables, as queries for the rows that break it.

First the log (I1, I7), then orders, trades, and money (I10). Three habits keep them honest: what is
joined is joined from both sides, so that a missing row is found like a wrong one; what may be NULL is
coalesced before it is compared; and every join is by equality, so that a million orders are hashed and
not searched. A `FULL JOIN` that stands alone would say more than one that is narrowed afterwards.
"""

# ruff: noqa: S608  # The queries are put together from constants of this file.

from dataclasses import dataclass

# The archive follows the watermark every half second; more than this means that it has stopped.
MOST_SETTLED_BATCHES = 10_000
# Commands that TX1 accepted and TX2 has not settled: the relay, the engine or the settler has stopped.
MOST_WAITING_COMMANDS = 1_000_000


@dataclass(frozen=True, slots=True)
class Check:
    """`looked_at` counts rows; `violations` selects what breaks the rule that `name` states."""

    name: str
    looked_at: str
    violations: str


_COUNT_LOG = "(SELECT count(*) FROM outbox) + (SELECT count(*) FROM outbox_archive)"
_COUNT_ORDERS, _COUNT_TRADES = "count(*) FROM orders", "count(*) FROM trades"
_COUNT_LEDGER, _COUNT_ACCOUNTS = "count(*) FROM ledger", "count(*) FROM accounts"

_GENESIS = "decode(repeat('00', 32), 'hex')"
_LOG = """
    SELECT partition, first_sequence, last_sequence, time_us, previous_chain, chain FROM outbox UNION ALL
    SELECT partition, first_sequence, last_sequence, time_us, previous_chain, chain FROM outbox_archive
"""

_LOG_CHECKS = (
    Check(
        "the batches of every partition follow each other from sequence 1, each once",
        _COUNT_LOG,
        f"""
        WITH pairs AS (
            SELECT *, lag(last_sequence, 1, 0::bigint) OVER w AS sequence_before,
                   lag(chain, 1, {_GENESIS}) OVER w AS chain_before,
                   lag(time_us, 1, 0::bigint) OVER w AS time_before
            FROM ({_LOG}) log WINDOW w AS (PARTITION BY partition ORDER BY first_sequence, last_sequence))
        SELECT partition, first_sequence, last_sequence, sequence_before FROM pairs
        WHERE first_sequence <> sequence_before + 1 OR last_sequence < first_sequence
           OR previous_chain <> chain_before OR time_us <= time_before
        """,
    ),
    Check(
        "every batch's chain covers its bytes",
        _COUNT_LOG,
        """
        SELECT partition, first_sequence FROM (SELECT * FROM outbox UNION ALL SELECT * FROM outbox_archive) l
        WHERE chain <> sha256(previous_chain || int8send(first_sequence) || int8send(time_us)
                              || sha256(commands))
        """,
    ),
    Check(
        "every partition counts to the end of its log",
        "count(*) FROM shards",
        f"""
        SELECT partition, s.last_sequence AS counted, l.last_sequence AS logged
        FROM shards s FULL JOIN (
            SELECT DISTINCT ON (partition) * FROM ({_LOG}) log ORDER BY partition, first_sequence DESC) l
        USING (partition)
        WHERE s.last_sequence IS NULL
           OR (s.last_sequence, s.last_time_us, s.chain)
              <> (coalesce(l.last_sequence, 0), coalesce(l.time_us, 0), coalesce(l.chain, {_GENESIS}))
        """,
    ),
    Check(
        "every watermark stands at the end of a batch, on its chain",
        "count(*) FROM watermarks",
        f"""
        SELECT partition, w.sequence AS watermark, s.last_sequence
        FROM shards s FULL JOIN watermarks w USING (partition)
        LEFT JOIN (SELECT partition AS of, last_sequence AS sequence, chain, time_us FROM ({_LOG}) log
                   UNION ALL SELECT partition, 0, {_GENESIS}, 0 FROM shards) l
            ON l.of = w.partition AND l.chain = w.chain
        WHERE w.sequence IS NULL OR s.last_sequence IS NULL
           OR (w.sequence, w.time_us) IS DISTINCT FROM (l.sequence, l.time_us)
        """,
    ),
    Check(
        "every relay stands at the end of a batch",
        "count(*) FROM relay_cursors",
        f"""
        SELECT partition, c.next_sequence, s.last_sequence
        FROM shards s FULL JOIN relay_cursors c USING (partition)
        LEFT JOIN (SELECT partition, last_sequence + 1 AS next_sequence FROM ({_LOG}) log
                   UNION ALL SELECT partition, 1 FROM shards) l USING (partition, next_sequence)
        WHERE c.next_sequence IS NULL OR s.last_sequence IS NULL OR l.partition IS NULL
        """,
    ),
    Check(
        "nothing is archived before it is settled",
        "count(*) FROM outbox_archive",
        """
        SELECT a.partition, a.first_sequence, w.sequence AS watermark
        FROM outbox_archive a LEFT JOIN watermarks w USING (partition)
        WHERE a.last_sequence > coalesce(w.sequence, 0)
        """,
    ),
    Check(
        f"the outbox is drained: at most {MOST_SETTLED_BATCHES:,} settled batches in it, and"
        f" {MOST_WAITING_COMMANDS:,} commands of a partition to settle",
        "count(*) FROM outbox",
        f"""
        SELECT partition, coalesce(o.batches, 0) AS settled_batches, s.last_sequence - w.sequence AS waiting
        FROM shards s JOIN watermarks w USING (partition)
        LEFT JOIN (SELECT o.partition, count(*) AS batches FROM outbox o JOIN watermarks w USING (partition)
                   WHERE o.last_sequence <= w.sequence GROUP BY 1) o USING (partition)
        WHERE coalesce(o.batches, 0) > {MOST_SETTLED_BATCHES}
            OR s.last_sequence - w.sequence > {MOST_WAITING_COMMANDS}
        """,
    ),
)

# What an order that rests must hold for what it has left; exact, because tick and lot divide (units).
_PRICE_OF_LOT = "m.tick_atoms::numeric * m.lot_atoms / 10::numeric ^ b.scale"
_MARKETS = f"""
    (SELECT m.*, {_PRICE_OF_LOT} AS atoms_per_tick_lot
     FROM markets m JOIN assets b ON b.asset_id = m.base_asset_id) m
"""

_ORDER_CHECKS = (
    Check(
        "every order stands in a batch of its market's partition",
        _COUNT_ORDERS,
        f"""
        SELECT o.order_id, o.market_id, o.partition, o.sequence, o.created_us
        FROM orders o LEFT JOIN markets m USING (market_id)
        LEFT JOIN ({_LOG}) l ON l.partition = o.partition AND l.time_us = o.created_us
        WHERE o.partition IS DISTINCT FROM m.partition OR l.time_us IS NULL
           OR o.sequence NOT BETWEEN l.first_sequence AND l.last_sequence
        """,
    ),
    Check(
        "no two orders have the same sequence",
        _COUNT_ORDERS,
        """
        SELECT partition, sequence, count(*) AS orders FROM orders
        GROUP BY partition, sequence HAVING count(*) > 1
        """,
    ),
    Check(
        "no order above the watermark is settled, and every one below is",
        _COUNT_ORDERS,
        """
        SELECT o.order_id, o.status, o.sequence, w.sequence AS watermark
        FROM orders o LEFT JOIN watermarks w USING (partition)
        WHERE w.sequence IS NULL OR (o.sequence <= w.sequence AND o.status = 1)
           OR (o.sequence > w.sequence
               AND (o.status, o.reason, o.filled_lots, o.filled_quote_atoms, o.fee_atoms, o.held_atoms,
                    o.updated_us) <> (1, 0, 0, 0, 0, o.hold_atoms, o.created_us))
        """,
    ),
    Check(
        "every order's filled quantity, quote and fee are the sums of its fills",
        _COUNT_ORDERS,
        f"""
        SELECT order_id, o.filled_lots, f.lots, o.filled_quote_atoms, f.quote, o.fee_atoms, f.fee
        FROM orders o FULL JOIN (
            SELECT s.order_id, sum(s.qty_lots) AS lots, sum(s.fee_atoms) AS fee,
                   sum(s.price_ticks * s.qty_lots * m.atoms_per_tick_lot) AS quote
            FROM (SELECT taker_order_id AS order_id, market_id, price_ticks::numeric, qty_lots,
                         taker_fee_atoms AS fee_atoms FROM trades UNION ALL
                  SELECT maker_order_id, market_id, price_ticks::numeric, qty_lots,
                         maker_fee_atoms FROM trades) s
            LEFT JOIN {_MARKETS} USING (market_id) GROUP BY 1) f USING (order_id)
        WHERE o.user_id IS NULL OR (o.filled_lots, o.filled_quote_atoms, o.fee_atoms)
            <> (coalesce(f.lots, 0), coalesce(f.quote, 0), coalesce(f.fee, 0))
        """,
    ),
    Check(
        "every state of an order has a history that explains it",
        _COUNT_ORDERS,
        """
        SELECT order_id, type, time_in_force, status, reason, qty_lots, quote_atoms, filled_lots FROM orders
        WHERE NOT coalesce(CASE status
            WHEN 1 THEN filled_lots = 0 AND reason = 0
            WHEN 2 THEN filled_lots = 0 AND reason = 0 AND (type, time_in_force) = (1, 1)
            WHEN 3 THEN filled_lots BETWEEN 1 AND qty_lots - 1 AND reason = 0
                        AND (type, time_in_force) = (1, 1)
            WHEN 4 THEN reason = 0 AND filled_lots > 0 AND (filled_lots = qty_lots OR quote_atoms > 0)
            WHEN 5 THEN reason IN (1, 2, 6, 8)
            WHEN 6 THEN filled_lots = 0 AND (reason IN (6, 7) OR (reason = 3 AND post_only))
            WHEN 7 THEN (type, time_in_force) <> (1, 1)
                        AND (reason = 4 OR (reason = 5 AND time_in_force = 3 AND filled_lots = 0))
            END, false)
           OR (qty_lots > 0 AND filled_lots > qty_lots)
           OR (quote_atoms > 0 AND filled_quote_atoms > quote_atoms)
           OR (filled_lots = 0 AND (filled_quote_atoms, fee_atoms) <> (0, 0))
           OR (time_in_force = 3 AND status <> 4 AND filled_lots <> 0) OR updated_us < created_us
        """,
    ),
    Check(
        "a live order holds what it still needs, an ended one nothing",
        _COUNT_ORDERS,
        f"""
        SELECT o.order_id, o.status, o.held_atoms, o.qty_lots - o.filled_lots AS left_lots
        FROM orders o LEFT JOIN {_MARKETS} USING (market_id)
        WHERE o.held_atoms IS DISTINCT FROM CASE
            WHEN o.status > 3 THEN 0
            WHEN o.status = 1 THEN o.hold_atoms
            WHEN o.side = 1 THEN (o.qty_lots - o.filled_lots)::numeric * o.price_ticks * m.atoms_per_tick_lot
            ELSE (o.qty_lots - o.filled_lots)::numeric * m.lot_atoms END
        """,
    ),
)

_TRADE_CHECKS = (
    Check(
        "trade ids are consecutive in every market",
        _COUNT_TRADES,
        """
        SELECT market_id, t.trades, t.first_id, t.last_id, s.next_trade_id
        FROM market_states s FULL JOIN (
            SELECT market_id, count(*) AS trades, min(trade_id) AS first_id, max(trade_id) AS last_id
            FROM trades GROUP BY market_id) t USING (market_id)
        WHERE (coalesce(t.first_id, 1), coalesce(t.last_id, 0), coalesce(t.trades, 0))
           <> (1, coalesce(s.next_trade_id, 1) - 1, coalesce(s.next_trade_id, 1) - 1)
        """,
    ),
    Check(
        "every trade is between two orders that explain it",
        _COUNT_TRADES,
        """
        SELECT t.market_id, t.trade_id, t.taker_order_id, t.maker_order_id
        FROM trades t LEFT JOIN orders taker ON taker.order_id = t.taker_order_id
        LEFT JOIN orders maker ON maker.order_id = t.maker_order_id
        WHERE t.qty_lots <= 0 OR t.price_ticks <= 0 OR t.maker_fee_atoms < 0 OR t.taker_fee_atoms < 0
           OR (taker.user_id, taker.market_id, taker.partition, taker.side, taker.sequence, taker.created_us)
              IS DISTINCT FROM
              (t.taker_user_id, t.market_id, t.partition, t.taker_side, t.sequence, t.time_us)
           OR (maker.user_id, maker.market_id, maker.partition, maker.side, maker.price_ticks, maker.type)
              IS DISTINCT FROM
              (t.maker_user_id, t.market_id, t.partition, 3 - t.taker_side, t.price_ticks, 1::smallint)
           OR maker.sequence >= t.sequence OR t.maker_user_id = t.taker_user_id OR taker.post_only
           OR (taker.type = 1 AND taker.side = 1 AND t.price_ticks > taker.price_ticks)
           OR (taker.type = 1 AND taker.side = 2 AND t.price_ticks < taker.price_ticks)
        """,
    ),
    Check(
        "no trade and no money moved stands above the watermark",
        f"(SELECT {_COUNT_TRADES}) + (SELECT {_COUNT_LEDGER} WHERE kind = 3)",
        """
        SELECT s.source, s.partition, s.sequence, w.sequence AS watermark FROM (
            SELECT 'trades' AS source, partition, max(sequence) AS sequence FROM trades GROUP BY 2 UNION ALL
            SELECT 'ledger', partition, max(sequence) FROM ledger WHERE kind = 3 GROUP BY 2) s
        LEFT JOIN watermarks w USING (partition) WHERE s.sequence > coalesce(w.sequence, 0)
        """,
    ),
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
        FROM trades t JOIN {_MARKETS} USING (market_id)) t
    CROSS JOIN LATERAL (VALUES
        (buyer, base, base_atoms - buyer_fee), (buyer, quote, -quote_atoms),
        (seller, base, -base_atoms), (seller, quote, quote_atoms - seller_fee),
        (fees, base, buyer_fee), (fees, quote, seller_fee)) v (user_id, asset_id, atoms)
    GROUP BY 1, 2
"""

_MONEY_CHECKS = (
    Check(
        "every ledger row says what it is of",
        _COUNT_LEDGER,
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
        _COUNT_LEDGER,
        """
        SELECT kind, partition, sequence, reference, asset_id, sum(delta_atoms) FROM ledger
        GROUP BY kind, partition, sequence, reference, asset_id HAVING sum(delta_atoms) <> 0
        """,
    ),
    Check(
        "every asset sums to zero in the ledger",
        _COUNT_LEDGER,
        "SELECT asset_id, sum(delta_atoms) FROM ledger GROUP BY asset_id HAVING sum(delta_atoms) <> 0",
    ),
    Check(
        "the ledger's trades are what the trades moved, per account",
        _COUNT_TRADES,
        f"""
        SELECT user_id, asset_id, l.atoms AS ledger_atoms, t.atoms AS trades_atoms FROM (
            SELECT user_id, asset_id, sum(delta_atoms) AS atoms FROM ledger WHERE kind = 3 GROUP BY 1, 2) l
        FULL JOIN ({_MOVED}) t USING (user_id, asset_id)
        WHERE coalesce(l.atoms, 0) <> coalesce(t.atoms, 0)
        """,
    ),
    Check(
        "available + held = deposits - withdrawals, per asset",
        _COUNT_ACCOUNTS,
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
        _COUNT_ACCOUNTS,
        """
        SELECT user_id, asset_id, a.available_atoms, a.held_atoms, l.atoms AS ledger_atoms
        FROM accounts a FULL JOIN (SELECT user_id, asset_id, sum(delta_atoms) AS atoms FROM ledger
                                   WHERE user_id <> 0 GROUP BY 1, 2) l USING (user_id, asset_id)
        WHERE coalesce(a.available_atoms::numeric + a.held_atoms, 0) <> coalesce(l.atoms, 0)
        """,
    ),
    Check(
        "held is what the live orders hold, per account",
        _COUNT_ACCOUNTS,
        f"""
        SELECT user_id, asset_id, a.held_atoms, h.atoms AS orders_hold_atoms
        FROM accounts a FULL JOIN (
            SELECT o.user_id, {_PAYS} AS asset_id, sum(o.held_atoms) AS atoms
            FROM orders o LEFT JOIN markets m USING (market_id) WHERE o.status <= 3 GROUP BY 1, 2) h
        USING (user_id, asset_id)
        WHERE coalesce(a.held_atoms, 0) <> coalesce(h.atoms, 0)
        """,
    ),
    Check(
        "no balance is negative",
        _COUNT_ACCOUNTS,
        """
        SELECT user_id, asset_id, available_atoms, held_atoms FROM accounts
        WHERE available_atoms < 0 OR held_atoms < 0
        """,
    ),
)

CHECKS = (*_LOG_CHECKS, *_ORDER_CHECKS, *_TRADE_CHECKS, *_MONEY_CHECKS)
