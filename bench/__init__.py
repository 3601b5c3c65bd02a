"""`make bench`: what the exchange does on this machine, beside what the machine itself can do.

    __main__.py     runs everything on one `exchange up` of its own and prints the table
    local.py        that `exchange up`: how long it takes, what it weighs
    http.py         the load generator's HTTP connection: raw bytes, so that little of the CPU is its own
    flow.py         the orders that the loads send, and what of them waits to be settled
    accept.py       single orders accepted over HTTP, many connections
    batches.py      batches of 100 over HTTP: a burst, and what settlement keeps up with
    streams.py      orders over gRPC streams, a bot each; bots.py: the bots, and an echo for them
    pressure.py     twice what is sustainable: what the surplus hears, and how it ends
    spike.py        ten times that, for half a minute out of the calm
    growth.py       the cost of an order up to a million live ones, and a cold start with them
    end_to_end.py   from the HTTP request to the own update on the WebSocket, at a steady rate
    tx1.py          TX1 alone, in batches, beside the bare rows: `python -m bench.tx1`
    streams_alone.py  orders over gRPC streams, beside an echo: `python -m bench.streams_alone`
    fanout.py       1,000 WebSocket clients on a busy market; fanout_feed.py: that market-data, alone
    failover.py     `make failover`: kill -9 of each kind of leader, and how long it is missed
    tx2.py          from the command batch to the settled trade, stage by stage; tx2_limit.py: the bare rows
    engine.py       `python -m bench.engine`: the engine alone; engine_flow.py, engine_run.py,
                    engine_bare.py: its flow, a run, what the machine takes
    gateway.py      the gateway alone, CPU an order; bare_route.py and bare_call.py: what it is made of
    limits.py       the machine: a commit, a Kafka round trip and rate, a bare route
    profiles.py     `--profile DIR`: where each daemon spends its time
    plot.py         lines over time, as an SVG
    table.py        figures and how they are printed

A benchmark is never a timed test: it prints, and a person judges. The load generator and all servers
share the machine with what they measure.
"""
