-- Keys for signed requests. Of an HMAC key (kind 1) the secret is kept, sealed under a master key; of an
-- Ed25519 key (kind 2) only the public half is known here. Permissions: READ 1, TRADE 2, WITHDRAW 4.
CREATE TABLE api_keys (
    api_key       text PRIMARY KEY CHECK (api_key ~ '^[A-Za-z0-9_-]{8,64}$'), -- The public name.
    user_id       bigint NOT NULL REFERENCES users,
    label         text NOT NULL DEFAULT '',
    kind          smallint NOT NULL CHECK (kind IN (1, 2)),
    sealed_secret bytea,
    public_key    bytea CHECK (length(public_key) = 32),
    permissions   smallint NOT NULL CHECK (permissions BETWEEN 1 AND 7),
    networks      text[] NOT NULL DEFAULT '{}', -- CIDRs it may be used from; empty: from anywhere.
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at    timestamptz,
    revoked_at    timestamptz,
    CHECK ((kind = 1) = (sealed_secret IS NOT NULL)),
    CHECK ((kind = 2) = (public_key IS NOT NULL))
);
CREATE INDEX api_keys_by_user ON api_keys (user_id);

-- A token with a key is a session: it ends by itself, and when its key does.
ALTER TABLE tokens
    ADD permissions smallint NOT NULL DEFAULT 7 CHECK (permissions BETWEEN 1 AND 7),
    ADD expires_at timestamptz,
    ADD api_key text REFERENCES api_keys,
    ADD CHECK (api_key IS NULL OR expires_at IS NOT NULL);
CREATE INDEX tokens_by_key ON tokens (api_key) WHERE api_key IS NOT NULL;
