"""Query parameters."""

from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from common.core.errors import Malformed
from gateway.query import CURSOR, Choice, Number, Query, Text, Time

SYMBOL = Text("symbol", "", required=True)
LIMIT = Number("limit", "", 100, 1000)
DEPTH = Number("depth", "", 50, 1000)
INTERVAL = Choice("interval", "", {"1m": 60, "1h": 3600}, "1m")
AFTER = Text("cursor", "", CURSOR)


def test_values_and_defaults() -> None:
    query = Query(b"symbol=BTC-USD&limit=7", (SYMBOL, LIMIT, DEPTH, INTERVAL, AFTER))
    assert (query[SYMBOL], query[LIMIT], query[DEPTH], query[INTERVAL], query[AFTER]) == (
        *("BTC-USD", 7, 50, 60, ""),
    )


def test_what_is_not_declared_cannot_be_asked_for() -> None:
    with pytest.raises(KeyError):
        Query(b"", (LIMIT,))[DEPTH]


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
    with pytest.raises(Malformed, match=field) as refused:
        Query(raw, (AFTER, LIMIT))
    assert set(refused.value.details) == {field}


def test_all_that_is_wrong_is_said() -> None:
    with pytest.raises(Malformed) as refused:
        Query(b"limit=0&cursor=%20", (SYMBOL, LIMIT, AFTER))
    assert set(refused.value.details) == {"symbol", "limit", "cursor"}


@pytest.mark.parametrize("raw", [b"\xff=1", b"limit=%ff", b"&".join(b"limit=%d" % n for n in range(50))])
def test_a_query_that_cannot_be_read(raw: bytes) -> None:
    with pytest.raises(Malformed):
        Query(raw, (LIMIT,))


@pytest.mark.parametrize("value", ["0", "1001", "-1", "1.5", "1e2", "", "x", "9" * 30, "٣"])
def test_numbers_out_of_range(value: str) -> None:
    with pytest.raises(Malformed) as refused:
        Query(f"limit={value}".encode("ascii", "xmlcharrefreplace"), (LIMIT,))
    assert refused.value.details


@pytest.mark.parametrize("value", ["a b", "x" * 200, "../etc", "'; --"])
def test_a_bad_cursor(value: str) -> None:
    with pytest.raises(Malformed) as refused:
        Query(b"cursor=" + quote(value).encode(), (AFTER,))
    assert refused.value.details == {"cursor": "not valid"}


def test_a_choice_that_is_none() -> None:
    with pytest.raises(Malformed, match="1m, 1h"):
        Query(b"interval=2m", (INTERVAL,))


def test_a_required_one_that_is_missing_or_empty() -> None:
    for raw in (b"", b"symbol="):
        with pytest.raises(Malformed) as refused:
            Query(raw, (SYMBOL,))
        assert refused.value.details == {"symbol": "required"}


@given(st.datetimes(datetime(1970, 1, 1, 0, 0, 1), timezones=st.just(UTC)), st.integers(-14 * 60, 14 * 60))
def test_a_time_in_any_zone_is_the_same_time(moment: datetime, offset_min: int) -> None:
    zone = timezone(timedelta(minutes=offset_min))
    expected = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert Time("t", "").read(moment.isoformat().replace("+00:00", "Z")) == expected
    assume(1 < moment.year < 9999)
    assert Time("t", "").read(moment.astimezone(zone).isoformat()) == expected


@pytest.mark.parametrize(
    "text", ["", "now", "2026-01-02", "2026-01-02T03:04:05", "2026-02-30T00:00:00Z", "2026-01-02 03:04:05Z"]
)
def test_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="must be a time"):
        Time("t", "").read(text)


def test_times_before_the_epoch_come_before_everything() -> None:
    assert Time("t", "").read("0001-01-01T00:00:00Z") == 1
    assert Time("t", "").absent() == 0
