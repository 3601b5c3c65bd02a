"""The protocol of DESIGN I1 to I8 as a small model, and a search through all that can happen to it.

Read in this order:

protocol.py       the specification: `Rules` are the decisions, `Protocol` what each process does with them
state.py          what there is: PostgreSQL, two topics, relays, engines, settlers; and what counts as harm
faults.py         what can go wrong at any step, and the system that is searched
explore.py        breadth-first search: safety in every state, liveness from every state, shortest traces
reduce.py         what makes the search small without changing what it sees
mutations.py      the same rules, one broken in each
test_protocol.py  which searches are made, and what each broken rule leads to

Safety, in every state: nothing settles twice, nothing promised is passed over, nothing settles that is not
in the log, and what was settled is the fold over the log. Liveness: from every state, steps that no fault
and no client has a part in can settle everything in the log.

How a lost commit is modelled: at some change of PostgreSQL its standby stops following; later it takes
over as it is. Batches, watermark, cursor and tokens go back together, all sessions end, and other batches
then get the same sequences with other chains. A token may so be given out a second time.

What the search has taught, beyond DESIGN's text; each has its mutation:
- TX2 must compare a batch with the outbox, not with the watermark's chain alone: a batch that was
  published and then lost continues the watermark as well as its successor does.
- An engine that met a fork must not read the topic again from where it began: the lost batch still lies
  there. It restores, reads from the end, and asks for a rewind.
- "Seen" by sequence alone hides a fork that is deeper than one batch: a batch above the watermark that
  comes again must have the chain that was kept.
- An engine behind the watermark (a warm standby can be) that meets a gap must restore: a rewind begins
  at the watermark. After PostgreSQL's failover a standby restores too: the watermark may have
  gone back.
DESIGN I7 stops a partition at a chain that does not fit, until a person resumes it. Here the settler passes
over such a record, with an alarm; a stop that is resumed comes to the same.

Not modelled: several commands in a batch and settlements in parts; more than one partition; several batches
in one TX2; a crash in the middle of sending several records (each record is sent whole or not at all);
what clients are told (I11), lock order (I9), holds and fees (I10), times of leases (a hang is a fault
after which a rival leads); the hint where to begin to read (a restart reads from the earliest record);
operators. The number of batches and faults is small, and PostgreSQL fails over once at most.
"""
