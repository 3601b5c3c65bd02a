-- The whole schema. Money is atoms (bigint), times are microseconds since the epoch (bigint) where
-- they come out of the engine's log and timestamptz where only people and leases look at them.

CREATE TABLE assets (
    asset_id integer PRIMARY KEY,
    symbol   text NOT NULL UNIQUE CHECK (symbol ~ '^[A-Z0-9]{2,10}$'),
    scale    integer NOT NULL CHECK (scale BETWEEN 0 AND 12)
);

-- user_id > 0: people and bots. user_id = -(partition + 1): the fees of a partition. 0: the outside
-- world, which has ledger entries (deposits, withdrawals) and no account.
CREATE TABLE users (
    user_id    bigint PRIMARY KEY,
    name       text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE SEQUENCE user_ids START 1001;

CREATE TABLE tokens (
    token_sha256 bytea PRIMARY KEY CHECK (length(token_sha256) = 32),
    user_id      bigint NOT NULL REFERENCES users,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    revoked_at   timestamptz
);
CREATE INDEX tokens_by_user ON tokens (user_id);

-- One row for each partition: the last number that TX1 gave out, its time, and the hash chain (I1).
CREATE TABLE shards (
    partition     integer PRIMARY KEY,
    last_sequence bigint NOT NULL DEFAULT 0,
    last_time_us  bigint NOT NULL DEFAULT 0,
    chain         bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex') CHECK (length(chain) = 32)
);

-- What never changes about a market. What does change is in market_states.
CREATE TABLE markets (
    market_id          integer PRIMARY KEY,
    symbol             text NOT NULL UNIQUE,
    base_asset_id      integer NOT NULL REFERENCES assets,
    quote_asset_id     integer NOT NULL REFERENCES assets,
    partition          integer NOT NULL REFERENCES shards,
    tick_atoms         bigint NOT NULL CHECK (tick_atoms > 0),
    lot_atoms          bigint NOT NULL CHECK (lot_atoms > 0),
    min_notional_atoms bigint NOT NULL CHECK (min_notional_atoms >= 0),
    -- As asked for at creation: what is shown until the engine has seen the market.
    maker_fee_bps      integer NOT NULL CHECK (maker_fee_bps BETWEEN 0 AND 5000),
    taker_fee_bps      integer NOT NULL CHECK (taker_fee_bps BETWEEN 0 AND 5000),
    CHECK (base_asset_id <> quote_asset_id)
);

-- The engine's view of a market at the watermark; written by TX2 alone.
CREATE TABLE market_states (
    market_id        integer PRIMARY KEY REFERENCES markets,
    partition        integer NOT NULL,
    status           smallint NOT NULL,
    maker_fee_bps    integer NOT NULL,
    taker_fee_bps    integer NOT NULL,
    next_trade_id    bigint NOT NULL,
    last_price_ticks bigint NOT NULL
);

CREATE TABLE accounts (
    user_id         bigint NOT NULL REFERENCES users,
    asset_id        integer NOT NULL REFERENCES assets,
    available_atoms bigint NOT NULL DEFAULT 0 CHECK (available_atoms >= 0),
    held_atoms      bigint NOT NULL DEFAULT 0 CHECK (held_atoms >= 0),
    PRIMARY KEY (user_id, asset_id)
) WITH (fillfactor = 70);

-- Append-only and double-entry: the rows of one (kind, partition, sequence, reference) sum to 0 in
-- every asset, and an account's available + held is the sum of its rows (I10).
CREATE TABLE ledger (
    ledger_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        smallint NOT NULL, -- 1 deposit, 2 withdrawal, 3 trades of a settlement
    partition   integer, -- kind 3: the settlement's partition and last sequence
    sequence    bigint,
    reference   text, -- kinds 1 and 2: unique, so that each happens once
    user_id     bigint NOT NULL,
    asset_id    integer NOT NULL,
    delta_atoms bigint NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX ledger_once ON ledger (reference, user_id, asset_id) WHERE reference IS NOT NULL;

CREATE SEQUENCE order_ids INCREMENT 1000 START 1000; -- A value n stands for the block n .. n + 999.

-- Columns down to created_us are written once by TX1; the rest belong to TX2 (I8).
CREATE TABLE orders (
    order_id           bigint PRIMARY KEY,
    user_id            bigint NOT NULL,
    market_id          integer NOT NULL,
    partition          integer NOT NULL,
    sequence           bigint NOT NULL,
    client_order_id    text,
    side               smallint NOT NULL,
    type               smallint NOT NULL,
    time_in_force      smallint NOT NULL,
    post_only          boolean NOT NULL,
    stp                smallint NOT NULL,
    price_ticks        bigint NOT NULL,
    qty_lots           bigint NOT NULL,
    quote_atoms        bigint NOT NULL,
    hold_atoms         bigint NOT NULL CHECK (hold_atoms > 0),
    created_us         bigint NOT NULL,
    status             smallint NOT NULL,
    reason             smallint NOT NULL DEFAULT 0,
    filled_lots        bigint NOT NULL DEFAULT 0,
    filled_quote_atoms bigint NOT NULL DEFAULT 0,
    fee_atoms          bigint NOT NULL DEFAULT 0,
    held_atoms         bigint NOT NULL CHECK (held_atoms >= 0),
    updated_us         bigint NOT NULL
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX orders_by_client_id ON orders (user_id, client_order_id) WHERE client_order_id IS NOT NULL;
CREATE INDEX orders_by_user ON orders (user_id, order_id);
-- The live ones: ACCEPTED 1, OPEN 2, PARTIALLY_FILLED 3.
CREATE INDEX orders_live ON orders (partition, user_id) WHERE status <= 3;

CREATE TABLE trades (
    market_id       integer NOT NULL,
    trade_id        bigint NOT NULL,
    partition       integer NOT NULL,
    sequence        bigint NOT NULL,
    time_us         bigint NOT NULL,
    price_ticks     bigint NOT NULL,
    qty_lots        bigint NOT NULL,
    taker_side      smallint NOT NULL,
    maker_order_id  bigint NOT NULL,
    taker_order_id  bigint NOT NULL,
    maker_user_id   bigint NOT NULL,
    taker_user_id   bigint NOT NULL,
    maker_fee_atoms bigint NOT NULL,
    taker_fee_atoms bigint NOT NULL,
    PRIMARY KEY (market_id, trade_id)
);
CREATE INDEX trades_by_maker ON trades (maker_user_id, time_us);
CREATE INDEX trades_by_taker ON trades (taker_user_id, time_us);

-- One row for each command batch: it stays until it is settled, then moves to the archive (I3).
CREATE TABLE outbox (
    partition      integer NOT NULL,
    first_sequence bigint NOT NULL,
    last_sequence  bigint NOT NULL,
    time_us        bigint NOT NULL,
    previous_chain bytea NOT NULL,
    chain          bytea NOT NULL,
    commands       bytea NOT NULL,
    PRIMARY KEY (partition, first_sequence)
);
CREATE TABLE outbox_archive (LIKE outbox INCLUDING ALL);

CREATE TABLE relay_cursors (
    partition     integer PRIMARY KEY REFERENCES shards,
    next_sequence bigint NOT NULL DEFAULT 1,
    last_offset   bigint NOT NULL DEFAULT -1 -- Of the last record sent; one that goes back means a new topic.
);

-- How far TX2 has settled a partition (I7).
CREATE TABLE watermarks (
    partition          integer PRIMARY KEY REFERENCES shards,
    sequence           bigint NOT NULL DEFAULT 0,
    chain              bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
    time_us            bigint NOT NULL DEFAULT 0,
    orders_offset      bigint NOT NULL DEFAULT -1, -- Hint: where the batch at the watermark lies in exchange.orders.
    settlements_offset bigint NOT NULL DEFAULT -1, -- Everything up to here is settled and told (I11).
    engine_version     integer NOT NULL DEFAULT 1,
    stopped            text -- Why settling stopped; NULL while it runs.
);

-- Leases (I5). The row is never deleted and the token only grows. The unique index is what makes a
-- takeover wait for FOR KEY SHARE while a renewal does not (I6).
CREATE TABLE partition_leader_locks (
    service       text NOT NULL,
    partition     integer NOT NULL,
    holder        text NOT NULL,
    fencing_token bigint NOT NULL,
    expires_at    timestamptz NOT NULL,
    PRIMARY KEY (service, partition),
    UNIQUE (service, partition, fencing_token)
);

-- Kept by market-data's candle leader, behind its fence, from the settled trades.
CREATE TABLE candles (
    market_id          integer NOT NULL,
    interval_s         integer NOT NULL,
    open_time_us       bigint NOT NULL,
    open_ticks         bigint NOT NULL,
    high_ticks         bigint NOT NULL,
    low_ticks          bigint NOT NULL,
    close_ticks        bigint NOT NULL,
    volume_lots        bigint NOT NULL,
    quote_volume_atoms bigint NOT NULL,
    trades             bigint NOT NULL,
    PRIMARY KEY (market_id, interval_s, open_time_us)
);
CREATE TABLE candle_cursors (
    market_id     integer PRIMARY KEY,
    last_trade_id bigint NOT NULL
);
