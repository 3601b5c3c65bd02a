"""matching: order books in memory; every instance follows every partition, one leads each.

outbound.py     what one applied batch becomes on Kafka
kept.py         what is applied and not settled yet, to be published by whoever leads
settled.py      what PostgreSQL says is settled, and what engines must arrive at
following.py    an engine from one restore on: applies batches, keeps events, compares digests
pauses.py       how an engine in a thread lets the loop go on
surroundings.py what the replicas of a process share, and what may end an engine's time
beginning.py    where a restored engine begins to read
replica.py      one partition: restore, follow, and publish while this process leads it
watch.py        what is settled, told to the replicas
metrics.py      what is counted
__main__.py     the composition root
"""
