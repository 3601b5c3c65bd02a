"""What the daemons and the gateway share.

core/           the domain, pure: start there
wire            the domain's values as the bytes of proto/exchange/v1, and back
    shown       what HTTP and the WebSocket show alike, as the JSON of API.md
config          settings, read once from the environment
sequence        a partition's next batch: its number, time, chain and outbox row (I1, I2)
admin           markets, users, tokens and deposits
audit           `exchange audit`: the tables against each other; audit_checks: the queries
replay          `exchange replay`: the log through a fresh engine, against the tables
snapshot        one snapshot for those two; restore: the engine's state at the watermark (I8)
migrate         the schema, in migrations/
db, kafka       sessions, producers and readers as blocks; topics: their names
lease           leadership with fencing tokens (I5); partitions: sharing them among instances
rpc             gRPC servers and channels as blocks (rpc_calls, rpc_errors: its parts)
supervise       one process: signals, the drain, the exit code
health          /metrics, /healthz, /readyz
telemetry       JSON logs
"""
