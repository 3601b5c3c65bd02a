"""Query parameters."""

from urllib.parse import quote

import pytest

from common.core.errors import Malformed
from gateway.query import CURSOR, Query


def test_values_and_defaults() -> None:
    query = Query(b"symbol=BTC-USD&limit=7", "symbol", "limit", "depth", "interval")
    assert query.required("symbol") == "BTC-USD"
    assert query.number("limit", 100, 1000) == 7
    assert query.number("depth", 50, 1000) == 50
    assert query.choice("interval", {"1m": 60}, "1m") == 60
    assert query.text("cursor", CURSOR) == ""


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b"foo=1", "foo"),
        (b"user_id=7", "user_id"),
        (b"limit=1&limit=2", "limit"),
        (b"limit=1&limit=1", "limit"),
    ],
)
def test_unknown_and_repeated_parameters(raw: bytes, field: str) -> None:
    with pytest.raises(Malformed) as refused:
        Query(raw, "symbol", "limit")
    assert field in refused.value.details


@pytest.mark.parametrize("raw", [b"\xff=1", b"limit=%ff", b"&".join(b"limit=%d" % n for n in range(50))])
def test_a_query_that_cannot_be_read(raw: bytes) -> None:
    with pytest.raises(Malformed):
        Query(raw, "limit")


@pytest.mark.parametrize("value", ["0", "1001", "-1", "1.5", "1e2", "", "x", "9" * 30, "٣"])
def test_numbers_out_of_range(value: str) -> None:
    with pytest.raises(Malformed) as refused:
        Query(f"limit={value}".encode("ascii", "xmlcharrefreplace"), "limit").number("limit", 100, 1000)
    assert refused.value.details


@pytest.mark.parametrize("value", ["a b", "x" * 200, "../etc", "'; --"])
def test_a_bad_cursor(value: str) -> None:
    with pytest.raises(Malformed) as refused:
        Query(b"cursor=" + quote(value).encode(), "cursor").text("cursor", CURSOR)
    assert refused.value.details == {"cursor": "not valid"}


def test_a_choice_that_is_none() -> None:
    with pytest.raises(Malformed, match="1m, 1h"):
        Query(b"interval=2m", "interval").choice("interval", {"1m": 60, "1h": 3600}, "1m")


def test_a_required_one_that_is_missing_or_empty() -> None:
    for raw in (b"", b"symbol="):
        with pytest.raises(Malformed) as refused:
            Query(raw, "symbol").required("symbol")
        assert refused.value.details == {"symbol": "required"}
