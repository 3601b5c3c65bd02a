"""The exchange under live load while everything is killed: `make chaos MINUTES=60`.

Read in this order:

world       what a fault acts on: the exchange, its own servers, the proxies between them
faults      what a fault is, and the registry of all kinds; faults_* hold the kinds, by what they hit
schedule    from a seed to the sequence of faults
told        what the clients were told: orders, answers, fills; the oracle's only source
load        users (bot) who trade by HTTP and gRPC (doors, client), listen (listener), and write that down
oracle      looks at the exchange at rest through its public API (public); judgement compares
observer    when trades settle, seen from outside: how long trading stopped
checks      audit and replay
runner      the sequence of it all; report and plot write down what came out (outcome)
servers     PostgreSQL, Valkey and Kafka of its own, which can be killed and wiped; proxy: what lies between
"""

import os

# Children are started beside gRPC's threads, and exec at once; its handlers would only get in the way.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
