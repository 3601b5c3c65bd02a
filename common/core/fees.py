"""Fees: basis points of what a side receives, rounded up to the next atom.

Rounding is against the user, so a fee is never too small, and a fee of at most 100 % never exceeds
what was received: taking it cannot create an atom or reach into a hold.
"""

MAX_FEE_BPS = 5_000
_WHOLE_BPS = 10_000


def fee_atoms(received_atoms: int, fee_bps: int) -> int:
    """The fee on `received_atoms`, in atoms of the same asset; at most `received_atoms`."""
    return (received_atoms * fee_bps + _WHOLE_BPS - 1) // _WHOLE_BPS
