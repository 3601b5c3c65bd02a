"""Fees: basis points of what a side receives, rounded up to the next atom.

Rounding is against the user, so a fee is never too small, and a fee of at most 100 % never exceeds
what was received: taking it cannot create an atom or reach into a hold.
"""

from typing import Final

from mypy_extensions import i64

MAX_FEE_BPS: Final = 5_000
_WHOLE_BPS: Final = 10_000


def fee_atoms(received_atoms: i64, fee_bps: i64) -> i64:
    """The fee on `received_atoms`, in atoms of the same asset; at most `received_atoms`.

    Whole ten-thousands apart from the rest, so that no product leaves 64 bits: machine words do not say so.
    """
    assert 0 <= fee_bps <= _WHOLE_BPS, "a fee is a part of what is received"
    whole = received_atoms // _WHOLE_BPS
    rest_atoms = received_atoms - whole * _WHOLE_BPS
    return whole * fee_bps + (rest_atoms * fee_bps + _WHOLE_BPS - 1) // _WHOLE_BPS
