-- Who shares the partitions of a service, on PostgreSQL's clock; how partitions find their way to one
-- that joins. Leases, not these rows, say who leads.
CREATE TABLE service_members (
    service    text NOT NULL,
    member     text NOT NULL, -- As the holder of its leases is named.
    ready      boolean NOT NULL, -- Could lead at once.
    since      timestamptz NOT NULL, -- It is there without a break, and as ready as now.
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (service, member)
) WITH (fillfactor = 50); -- Written about once a second: leave room to do it in place.
