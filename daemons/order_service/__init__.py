"""order-service: every write to accounts and orders.

In the order in which an order meets them:

    identity.py     who is calling, on the public and on the internal port
    look_ups.py     whose tokens and keys they are, many in one statement
    key_desk.py     the same for the other daemons, and sessions
    callers.py      which daemon may call what on the internal port
    service.py      the RPCs: messages in, requests to the committer, messages out
    translate.py    orders out of protobuf's messages, and answers into them
    stream.py       a stream of orders: read ahead, answered in order
    requests.py     what a batch is made of, and the answers
    committer.py    natural batching: what arrives while a transaction runs forms the next one
    backlog.py      how much waits to be settled, and which partitions take no new orders for it
    planning.py     what TX1 decides, without any I/O
    placement.py    TX1: holds, orders and outbox rows in one transaction
    order_rows.py   the rows of orders, packed for COPY
    relay.py        outbox -> exchange.orders, at least once, in sequence
    settlement.py   TX2: one transaction that settles whole batches
    settler.py      exchange.settlements -> TX2 -> exchange.order_updates, one leader a partition
    teller.py       the same updates to each market-data directly, ahead of Kafka, best effort
    tail.py         what a settler reads, read before it leads
    idempotency.py  Idempotency-Key: who carries a request out, and what it was answered
    upkeep.py       the reaper of hung transactions, the archive of the outbox, keys that have ended
    settled.py      those who wait until their orders are settled
    queries.py      what users ask: order_lists (the statements of lists), pages (where they end; cursors)
    admin_service.py  what operators do, on a port of its own
    testers.py      local mode: users with test money
    markets.py      the markets as the watermark left them
"""
