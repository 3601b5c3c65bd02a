"""order-service: every write to accounts and orders.

In the order in which an order meets them:

    identity.py     who is calling, on the public and on the internal port
    service.py      the RPCs: messages in, requests to the committer, messages out
    requests.py     what a batch is made of, and the answers
    committer.py    natural batching: what arrives while a transaction runs forms the next one
    placement.py    TX1: holds, orders and outbox rows in one transaction
    relay.py        outbox -> exchange.orders, at least once, in sequence
    settlement.py   TX2: one transaction that settles whole batches
    settler.py      exchange.settlements -> TX2 -> exchange.order_updates, one leader a partition
    upkeep.py       the reaper of hung transactions, and the archive of the outbox
    queries.py      what users ask
    testers.py      local mode: users with test money
    markets.py      the markets as the watermark left them
"""
