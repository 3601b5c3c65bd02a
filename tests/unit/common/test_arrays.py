"""Columns of integers are what psycopg itself would make of them, in PostgreSQL's binary format."""

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.adapt import PyFormat, Transformer
from psycopg.types.numeric import Int2, Int4, Int8

from common.arrays import Byteas, Int2s, Int4s, Int8s, packed

KINDS = [(Int2s, Int2, 16, 1005), (Int4s, Int4, 32, 1007), (Int8s, Int8, 64, 1016)]
Kind = type[Int2s | Int4s | Int8s]
Scalar = type[Int2 | Int4 | Int8]


@pytest.mark.parametrize(("kind", "scalar", "bits", "oid"), KINDS)
@given(data=st.data())
def test_the_bytes_are_those_of_psycopg(
    kind: Kind, scalar: Scalar, bits: int, oid: int, data: st.DataObject
) -> None:
    top = (1 << (bits - 1)) - 1
    values = data.draw(st.lists(st.integers(-top - 1, top), min_size=1, max_size=20))
    theirs = Transformer().get_dumper([scalar(one) for one in values], PyFormat.BINARY)
    assert kind(values).packed() == bytes(theirs.dump([scalar(one) for one in values]) or b"")
    assert theirs.oid == oid


@pytest.mark.parametrize(("kind", "bits"), [(kind, bits) for kind, _, bits, _ in KINDS])
def test_a_number_that_does_not_fit(kind: Kind, bits: int) -> None:
    top = (1 << (bits - 1)) - 1
    for value in (top + 1, -top - 2):
        with pytest.raises(psycopg.DataError):
            kind([0, value]).packed()


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5))
def test_a_column_of_bytes(values: list[bytes]) -> None:
    theirs = Transformer().get_dumper(values, PyFormat.BINARY)
    assert Byteas(values).packed() == bytes(theirs.dump(values) or b"")
    assert packed([Byteas(values), Int2s([1])]) == [Byteas(values).packed(), Int2s([1]).packed()]


def test_an_empty_column_has_no_dimension() -> None:
    assert Int8s([]).packed() == bytes(8) + (20).to_bytes(4, "big")
    assert Byteas([]).packed() == bytes(8) + (17).to_bytes(4, "big")
