-- What users asked under an Idempotency-Key, and what they were answered. A key ends 24 hours after it was
-- first used: who uses it then begins anew, and what nobody uses is removed.
CREATE TABLE idempotency_keys (
    user_id     bigint NOT NULL,
    key         text COLLATE "C" NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    fingerprint bytea NOT NULL CHECK (length(fingerprint) = 32), -- SHA-256 of the request.
    claimant    bigint NOT NULL, -- Who carries the request out; 0: nobody now.
    claimed_at  timestamptz NOT NULL,
    created_at  timestamptz NOT NULL,
    effect      bigint, -- Of a cancel that TX1 has committed under this key: what it was answered.
    answer      bytea, -- The first answer; NULL until there is one.
    PRIMARY KEY (user_id, key)
) WITH (fillfactor = 70);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
