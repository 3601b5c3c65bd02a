"""What the daemons and the gateway share.

core/           the domain, pure: start there
wire            the domain's values as the bytes of proto/exchange/v1, and back
    shown       what HTTP and the WebSocket show alike, as the JSON of API.md
    socket_messages   the language of the WebSocket, and its channels
config          settings, read once from the environment
identity/       who calls, and what they may do: keys, signatures, permissions, secrets at rest
keys            API keys: made, listed, revoked, renewed; sessions: tokens that they open
sequence        a partition's next batch: its number, time, chain and outbox row (I1, I2)
admin           markets, users and tokens; money: deposits and withdrawals
acts            the same as acts of an operator, each with its row of the audit_log; acts_of_keys: of keys
audit           `exchange audit`: the tables against each other; audit_checks: the queries
replay          `exchange replay`: the log through a fresh engine, against the tables
snapshot        one snapshot for those two; restore: the engine's state at the watermark (I8)
migrate         the schema, in migrations/
db              sessions as blocks
kafka           producers; kafka_reader; kafka_calls: around aiokafka; topics: their names
lease           leadership with fencing tokens (I5); partitions: sharing them among instances
trip            several statements in one round trip
spares          sessions opened before they are needed
stops           partitions that stand still, and what operators did about it
rpc             gRPC servers and channels as blocks (rpc_calls, rpc_errors: its parts)
tls             certificates between the daemons; peers: which role may call what
supervise       one process: signals, the drain, the exit code
health          /metrics, /healthz, /readyz
proxy_line      whose WebSocket is spliced
telemetry       JSON logs
"""
