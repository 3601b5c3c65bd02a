"""What `exchange status` shows, for people and for programs."""

import json

import pytest

from daemons.local import status
from daemons.local.fleet import Ports
from daemons.local.record import Run
from daemons.local.status import Leader, Part, Partition, Status, as_json, as_text, read_status

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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


async def test_the_addresses_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """One gateway that is ready is enough: they share a socket."""

    async def ask(_client: object, _run: object) -> list[Part]:
        return [Part("gateway", False, "does not answer"), Part("gateway-2", True, "")]

    monkeypatch.setattr(status, "ask_daemons", ask)
    own = {"order-service": {"orders_port": 2}, "order-service-2": {"orders_port": 3}}
    run = Run(1, "http://h:1", "h", "", "", "", "", Ports(1, own))
    found = await read_status(run, "")
    assert (found.orders_grpc, found.ready) == ("h:2,h:3", True)


def test_nothing_runs() -> None:
    assert as_text(Status()) == "NOT READY  (not running)"
