-- What the engine's books looked like at certain sequences: every other engine must arrive at the same.
CREATE TABLE book_digests (
    partition integer NOT NULL,
    sequence  bigint NOT NULL, -- The last of the batch after which it was taken.
    market_id integer NOT NULL,
    digest    bytea NOT NULL CHECK (length(digest) = 32),
    PRIMARY KEY (partition, sequence, market_id)
);
