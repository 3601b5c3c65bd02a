"""`exchange up`: the whole exchange on one machine, and the commands that look after it.

Read in this order:

    process     one child process: started, watched, stopped; it dies with us, whatever happens to us
    ports       free ports, and the sentence for a taken one
    postgres    PostgreSQL  \\
    valkey      Valkey       } each an `async with` around one server under one data folder
    kafka       Kafka       /  (kafka_jars fetches what it runs)
    servers     the three in parallel, restarted when one dies, or external ones in their place
    fleet       the daemons: their environment, their restarts, the order in which they drain
    up          `exchange up`
    rolling     `exchange restart`
    status      `exchange status`
    operator    `exchange migrate`, `market`, `user`, `withdrawal`, `audit-log`
    keys        `exchange key`
    certs       `exchange certs`
    audit       `exchange audit`
    replay      `exchange replay`
    demo        the two bots of `exchange up --demo`, a process of their own
    cli         the command of all of these; arguments: what may be said to it

Does not promise: safety. Two exchanges may share a data folder's servers only through the lock that
`up` takes; what keeps money right when processes die or run twice is in the daemons (DESIGN I5 to I8).
"""
