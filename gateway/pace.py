"""How slowly a client may send what it has begun to send: a least rate, not only a total time; pure.

A slow-loris keeps a connection and a task busy with a byte now and then. A total time alone must be long
enough for the largest body on a slow line, and gives that long to everybody. By rate, who sends next to
nothing is found out after the grace, and who sends steadily has the time that it needs.
"""

GRACE_S = 4.0  # Before the rate counts: a lost packet or two, and a phone that wakes up.
LEAST_BYTES_PER_S = 2_000


def deadline_s(begun_s: float, received_bytes: int, most_s: float) -> float:
    """When more must have come than `received_bytes`; at the latest `most_s` after the beginning."""
    return begun_s + min(most_s, GRACE_S + received_bytes / LEAST_BYTES_PER_S)
