"""market-data: what everybody may see of the markets, and what each may see of their own.

It reads exchange.orderbook, exchange.trades and exchange.order_updates, keeps views in memory, and tells
them over WebSockets (`/ws`, behind the gateway's splice), gRPC and Redis. It writes nothing that others
need but the candles. Read in this order:

    feed            events -> views: one market's book, tape, candles and ticker. Pure.
    outbox          what waits for one client: queued, conflated, or the client is closed. Pure.
    render          numbers -> the JSON of API.md. Pure.
    protocol        what clients say, channels by name, the bytes of frames. Pure.
    channels        the public channels of a market: who listens and what they are sent
    fanout          what was published, written to all listeners in one go
    markets         all feeds and channels; candles and tickers go out a few times a second
    directory       which markets there are, from order-service
    records         what a record must be to be used. Pure.
    follow, events  Kafka: the readers, and what is done with their records
    dead_letters    where those go that cannot be used
    repair, history PostgreSQL: the tape and candles at a start, and trades that Kafka did not bring
    candles         the candle writer, a leader for each partition
    private         orders, fills and balances, each to its owner alone
    turns           order updates from Kafka and, sooner, from the settler: each once, none jumped over. Pure.
    identities      whose token or key a client came with, and whether it still is
    allowance       how much one client may say. Pure.
    connection, ws  one WebSocket client; the server
    desk            joins the last five for the clients
    service         gRPC, for the public and for the settler
    redis_sink      snapshots in Redis
    orders_client   what is asked of order-service
    metrics         what is counted
    __main__        the composition root

The WebSocket's messages, where API.md leaves it open. Every data message is
`{"channel", "type": "snapshot" | "update", "sequence", "previous", "data"}`; `previous` is the sequence of
the message before it on that channel of that connection, 0 in the snapshot of a public channel. A snapshot
may come again at any time and replaces what was there.

    trades:SYMBOL    a list of trades, oldest first; sequence: the last one's trade_id
    depth:SYMBOL     {"bids": [[price, quantity]], "asks": [...]}: the whole book, then changed levels
    ticker:SYMBOL    an object, whole each time; null where there was no price
    klines:SYMBOL:1m a list of candles, oldest first; an update has those that changed, whole
    orders           a list of the live orders, newest first; then one object for each change
    fills            a list of the last 100, newest first; then one object for each
    balances         a list of {asset, available, held}; then one such object for each that changed

Answers: `{"op": "subscribed" | "unsubscribed", "channels": [...], "id"}`, `{"op": "authenticated", "user_id",
"id"}`, `{"op": "pong", "id"}`, `{"op": "error", "error": {"code", "message", "details"}, "id"}`.
Close codes: 1001 the server goes, 1003 binary, 1008 no answer to pings, 1009 over 64 KiB, 1013 too slow.
"""
