"""What `exchange status` shows, for people and for programs."""

import json

from daemons.local.status import Leader, Part, Partition, Status, as_json, as_text

_STATUS = Status(
    ready=True,
    url="http://127.0.0.1:8100",
    orders_grpc="127.0.0.1:8101",
    market_data_grpc="127.0.0.1:8102",
    daemons=[Part("gateway", True, ""), Part("market-data", False, "does not answer")],
    leaders=[Leader("matching", 0, "matching-1", 7, True), Leader("matching", 1, "matching-2", 3, False)],
    partitions=[Partition(0, 12, 11, 9, 3, ""), Partition(1, 5, 5, 5, 0, "a chain does not fit")],
)


def test_tables_for_people() -> None:
    lines = [line.split() for line in as_text(_STATUS).splitlines()]
    assert ["open", "http://127.0.0.1:8100"] in lines
    assert ["market-data", "DOWN", "does", "not", "answer"] in lines
    assert ["matching", "1", "3", "matching-2", "EXPIRED"] in lines
    assert ["0", "12", "11", "9", "3", "3"] in lines
    assert ["1", "5", "5", "5", "0", "0", "STOPPED:", "a", "chain", "does", "not", "fit"] in lines


def test_the_same_for_programs() -> None:
    found = json.loads(as_json(_STATUS))
    assert found["partitions"][0] == {
        "partition": 0,
        "accepted": 12,
        "published": 11,
        "settled": 9,
        "outbox_rows": 3,
        "stopped": "",
        "lag": 3,
    }
    assert found["leaders"][0]["fencing_token"] == 7


def test_nothing_runs() -> None:
    assert as_text(Status()) == "NOT READY  (not running)"
