-- Why a partition does not go on, one row for each service that stopped; deleted when it is resumed.
CREATE TABLE partition_stops (
    partition    integer NOT NULL,
    service      text NOT NULL,
    reason       text NOT NULL,
    topic        text, -- Of the record that could not be read, when there is one.
    kafka_offset bigint,
    record       bytea,
    sequence     bigint, -- Of the batch that could not be applied, when it is known.
    stopped_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (partition, service)
);

-- What operators did about it. Append-only; the skips are part of the log that a replay follows.
CREATE TABLE operator_acts (
    act_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partition    integer NOT NULL,
    act          text NOT NULL CHECK (act IN ('resume', 'skip_record', 'skip_command')),
    reason       text NOT NULL CHECK (length(reason) > 0),
    operator     text NOT NULL,
    topic        text,
    kafka_offset bigint,
    record       bytea, -- The record that was passed over, kept.
    sequence     bigint, -- The command that every engine passes over.
    acted_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (act <> 'skip_record' OR (topic IS NOT NULL AND kafka_offset IS NOT NULL AND record IS NOT NULL)),
    CHECK (act <> 'skip_command' OR sequence IS NOT NULL)
);
CREATE UNIQUE INDEX operator_skips ON operator_acts (partition, sequence) WHERE act = 'skip_command';
