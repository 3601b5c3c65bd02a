"""Orders and trades, against the log and against each other."""

# ruff: noqa: S608  # The queries are put together from constants of this package.

from common.audit_checks.check import COUNT_LEDGER, COUNT_ORDERS, COUNT_TRADES, LOG, MARKETS, Check

ORDER_CHECKS = (
    Check(
        "every order stands in a batch of its market's partition",
        COUNT_ORDERS,
        f"""
        SELECT o.order_id, o.market_id, o.partition, o.sequence, o.created_us
        FROM orders o LEFT JOIN markets m USING (market_id)
        LEFT JOIN ({LOG}) l ON l.partition = o.partition AND l.time_us = o.created_us
        WHERE o.partition IS DISTINCT FROM m.partition OR l.time_us IS NULL
           OR o.sequence NOT BETWEEN l.first_sequence AND l.last_sequence
        """,
    ),
    Check(
        "no two orders have the same sequence",
        COUNT_ORDERS,
        """
        SELECT partition, sequence, count(*) AS orders FROM orders
        GROUP BY partition, sequence HAVING count(*) > 1
        """,
    ),
    Check(
        "no order above the watermark is settled, and every one below is",
        COUNT_ORDERS,
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
        COUNT_ORDERS,
        f"""
        SELECT order_id, o.filled_lots, f.lots, o.filled_quote_atoms, f.quote, o.fee_atoms, f.fee
        FROM orders o FULL JOIN (
            SELECT s.order_id, sum(s.qty_lots) AS lots, sum(s.fee_atoms) AS fee,
                   sum(s.price_ticks * s.qty_lots * m.atoms_per_tick_lot) AS quote
            FROM (SELECT taker_order_id AS order_id, market_id, price_ticks::numeric, qty_lots,
                         taker_fee_atoms AS fee_atoms FROM trades UNION ALL
                  SELECT maker_order_id, market_id, price_ticks::numeric, qty_lots,
                         maker_fee_atoms FROM trades) s
            LEFT JOIN {MARKETS} USING (market_id) GROUP BY 1) f USING (order_id)
        WHERE o.user_id IS NULL OR (o.filled_lots, o.filled_quote_atoms, o.fee_atoms)
            <> (coalesce(f.lots, 0), coalesce(f.quote, 0), coalesce(f.fee, 0))
        """,
    ),
    Check(
        "every state of an order has a history that explains it",
        COUNT_ORDERS,
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
        COUNT_ORDERS,
        f"""
        SELECT o.order_id, o.status, o.held_atoms, o.qty_lots - o.filled_lots AS left_lots
        FROM orders o LEFT JOIN {MARKETS} USING (market_id)
        WHERE o.held_atoms IS DISTINCT FROM CASE
            WHEN o.status > 3 THEN 0
            WHEN o.status = 1 THEN o.hold_atoms
            WHEN o.side = 1 THEN (o.qty_lots - o.filled_lots)::numeric * o.price_ticks * m.atoms_per_tick_lot
            ELSE (o.qty_lots - o.filled_lots)::numeric * m.lot_atoms END
        """,
    ),
)

# What operators did; a partition that stands still is no violation, and `exchange audit` tells it apart.
SKIP_CHECKS = (
    Check(
        "a skipped order ended CANCELED for it with nothing filled, and no other did",
        "(SELECT count(*) FROM orders) + (SELECT count(*) FROM operator_acts WHERE act = 'skip_command')",
        """
        SELECT partition, sequence, o.order_id, o.status, o.reason, a.operator
        FROM (SELECT * FROM operator_acts WHERE act = 'skip_command') a
        FULL JOIN orders o USING (partition, sequence)
        LEFT JOIN (SELECT partition, sequence AS settled FROM watermarks) w USING (partition)
        LEFT JOIN (SELECT partition, last_sequence AS logged FROM shards) s USING (partition)
        WHERE (a.act_id IS NULL AND o.reason = 8)
           OR (a.act_id IS NOT NULL AND a.sequence > coalesce(s.logged, 0))
           OR (a.act_id IS NOT NULL AND o.sequence <= w.settled
               AND (o.status, o.reason, o.filled_lots, o.filled_quote_atoms, o.fee_atoms, o.held_atoms)
                   <> (5, 8, 0, 0, 0, 0))
        """,
    ),
)

TRADE_CHECKS = (
    Check(
        "trade ids are consecutive in every market",
        COUNT_TRADES,
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
        COUNT_TRADES,
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
        "no trade, no money moved and no digest stands above the watermark",
        f"(SELECT {COUNT_TRADES}) + (SELECT {COUNT_LEDGER} WHERE kind = 3)"
        " + (SELECT count(*) FROM book_digests)",
        """
        SELECT s.source, s.partition, s.sequence, w.sequence AS watermark FROM (
            SELECT 'trades' AS source, partition, max(sequence) AS sequence FROM trades GROUP BY 2 UNION ALL
            SELECT 'ledger', partition, max(sequence) FROM ledger WHERE kind = 3 GROUP BY 2 UNION ALL
            SELECT 'digests', partition, max(sequence) FROM book_digests GROUP BY 2) s
        LEFT JOIN watermarks w USING (partition) WHERE s.sequence > coalesce(w.sequence, 0)
        """,
    ),
)
