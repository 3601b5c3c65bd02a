-- What operators do, in the order in which it was done; written in the transaction of the act itself. Each
-- row's hash covers the row and the hash before it, so that one that was changed or taken out behind
-- PostgreSQL's back shows, as long as a later hash is known elsewhere.
CREATE TABLE audit_log (
    entry_id      bigint PRIMARY KEY, -- Without gaps.
    at            timestamptz NOT NULL,
    actor         text NOT NULL CHECK (length(actor) > 0), -- The system's user, or a certificate's holder.
    via           text NOT NULL CHECK (via IN ('cli', 'grpc')),
    act           text NOT NULL,
    target        text NOT NULL,
    arguments     jsonb NOT NULL, -- No secrets.
    outcome       text NOT NULL, -- done, repeated, or the code of the error that refused it.
    previous_hash bytea NOT NULL,
    hash          bytea NOT NULL CHECK (length(hash) = 32)
);

CREATE FUNCTION audit_log_hash(entry audit_log) RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT sha256(entry.previous_hash || convert_to(jsonb_build_array(
        entry.entry_id, (extract(epoch FROM entry.at) * 1000000)::bigint, entry.actor, entry.via, entry.act,
        entry.target, entry.arguments, entry.outcome)::text, 'UTF8'))
$$;

-- The lock makes one row follow the other, until the end of its transaction. Whoever writes a row does it
-- last, so that nobody who holds this lock waits for another.
CREATE FUNCTION audit_log_append() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last audit_log;
BEGIN
    PERFORM pg_advisory_xact_lock(6205518422);
    SELECT * INTO last FROM audit_log ORDER BY entry_id DESC LIMIT 1;
    NEW.entry_id := coalesce(last.entry_id, 0) + 1;
    NEW.at := clock_timestamp();
    NEW.previous_hash := coalesce(last.hash, decode(repeat('00', 32), 'hex'));
    NEW.hash := audit_log_hash(NEW);
    RETURN NEW;
END
$$;
CREATE TRIGGER audit_log_append BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION audit_log_append();

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A deposit's reference is the outside world's, and happens once.
CREATE TABLE deposits (
    reference  text PRIMARY KEY,
    user_id    bigint NOT NULL REFERENCES users,
    asset_id   integer NOT NULL REFERENCES assets,
    atoms      bigint NOT NULL CHECK (atoms > 0),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO deposits (reference, user_id, asset_id, atoms, created_at)
SELECT DISTINCT ON (reference) reference, user_id, asset_id, delta_atoms, created_at
FROM ledger WHERE kind = 1 AND user_id <> 0 ORDER BY reference, ledger_id;

-- While it is PENDING (1), its atoms are among those that its account holds. COMPLETED (2): they have left,
-- with ledger rows of kind 2. CANCELED (3): they are available again.
CREATE TABLE withdrawals (
    withdrawal_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id       bigint NOT NULL REFERENCES users,
    asset_id      integer NOT NULL REFERENCES assets,
    atoms         bigint NOT NULL CHECK (atoms > 0),
    address       text NOT NULL, -- Where to, in the words of the asset's own world.
    reference     text NOT NULL, -- Of whoever asked: once for each user.
    status        smallint NOT NULL DEFAULT 1 CHECK (status IN (1, 2, 3)),
    closing       text, -- COMPLETED: the transaction that paid it; CANCELED: why.
    requested_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at      timestamptz,
    UNIQUE (user_id, reference),
    CHECK ((status = 1) = (closing IS NULL)),
    CHECK ((status = 1) = (ended_at IS NULL))
);
CREATE INDEX withdrawals_pending ON withdrawals (withdrawal_id) WHERE status = 1;

-- References of deposits and of withdrawals do not meet.
DROP INDEX ledger_once;
CREATE UNIQUE INDEX ledger_once ON ledger (kind, reference, user_id, asset_id) WHERE reference IS NOT NULL;
