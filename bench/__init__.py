"""`make bench`: what the exchange does on this machine, beside what the machine itself can do.

    __main__.py     runs everything on one `exchange up` of its own and prints the table
    local.py        that `exchange up`: how long it takes, what it weighs
    http.py         the load generator's HTTP connection: raw bytes, so that little of the CPU is its own
    accept.py       orders accepted over HTTP, many connections
    end_to_end.py   from the HTTP request to the own update on the WebSocket, at a steady rate
    limits.py       the machine: a commit, a Kafka round trip, a bare route
    table.py        figures and how they are printed

A benchmark is never a timed test: it prints, and a person judges. The load generator and all servers
share the machine with what they measure.
"""
