"""matching: order books in memory, one leader for each partition.

outbound.py     what one applied batch becomes on Kafka
kept.py         what was published and not settled yet, to be published again
replica.py      one leadership: restore (common.restore), consume, apply, publish
__main__.py     the composition root: which partitions this process leads
"""
