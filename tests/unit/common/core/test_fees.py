import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core.fees import MAX_FEE_BPS, fee_atoms


@given(st.integers(0, 2**63 - 1), st.integers(0, MAX_FEE_BPS))
def test_a_fee_is_the_least_whole_atom_that_covers_it(received_atoms: int, fee_bps: int) -> None:
    fee = fee_atoms(received_atoms, fee_bps)
    assert (fee - 1) * 10_000 < received_atoms * fee_bps <= fee * 10_000
    assert 0 <= fee <= received_atoms


def test_one_atom_pays_one_atom() -> None:
    assert fee_atoms(1, 1) == 1
    assert fee_atoms(1, 0) == 0


@pytest.mark.parametrize("fee_bps", [-1, 10_001, 2**31 - 1])
def test_a_fee_that_is_no_part_of_it_is_impossible(fee_bps: int) -> None:
    with pytest.raises(AssertionError):
        fee_atoms(10**18, fee_bps)
