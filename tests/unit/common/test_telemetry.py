"""Logs are one JSON object a line, named, with the context, and without secrets."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from common import telemetry


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.root
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in telemetry._TALKATIVE}
    yield
    root.handlers, root.level = handlers, level
    for name, each in levels.items():
        logging.getLogger(name).setLevel(each)
    logging.captureWarnings(False)
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_a_line_names_time_level_process_module_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.setup("matching", "host:1", "INFO")
    telemetry.get_logger("common.test").info("leading", partition=3, price="100,5 €")
    (line,) = lines(capsys)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "service": "matching",
        "instance": "host:1",
        "module": "common.test",
        "event": "leading",
        "partition": 3,
        "price": "100,5 €",
    }


def test_what_is_bound_to_the_context_is_in_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.setup("gateway", "g", "INFO")
    log = telemetry.get_logger("m")
    with structlog.contextvars.bound_contextvars(request_id="r-1", order_id=7):
        log.info("inside")
        logging.getLogger("library").warning("also %s", "inside")
    log.info("outside")
    inside, library, outside = lines(capsys)
    assert (inside["request_id"], inside["order_id"]) == ("r-1", 7)
    assert (library["request_id"], library["event"], library["level"]) == ("r-1", "also inside", "warning")
    assert "request_id" not in outside


def test_levels_hold_for_us_and_for_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.setup("s", "i", "WARNING")
    telemetry.get_logger("m").info("hidden")
    logging.getLogger("library").info("hidden")
    telemetry.setup("s", "i", "INFO")
    logging.getLogger("aiokafka.consumer").info("talk")
    logging.getLogger("library").info("shown")
    assert [line["event"] for line in lines(capsys)] == ["shown"]


def test_secrets_are_masked_wherever_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.setup("s", "i", "INFO")
    log = telemetry.get_logger("m")
    log.info(
        "known", token="hunter2", api_token=b"hunter2", authorization="Bearer hunter2", password="hunter2"
    )
    log.info("cannot reach postgresql://user:hunter2@host/db", header="Bearer hunter2")
    try:
        raise ValueError("redis://:hunter2@host:1 refused")
    except ValueError:
        log.exception("failed")
        logging.getLogger("library").exception("failed with Bearer hunter2")
    log.info("leading", fencing_token=12)
    printed = lines(capsys)
    assert "hunter2" not in json.dumps(printed)
    assert "host/db" in printed[1]["event"]
    assert "ValueError" in printed[2]["exception"]
    assert printed[-1]["fencing_token"] == 12


def test_what_json_does_not_know_is_told_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.setup("s", "i", "INFO")
    telemetry.get_logger("m").info("odd", where=object, blob=b"\x00")
    (line,) = lines(capsys)
    assert "object" in line["where"]


def test_a_logger_made_before_the_setup_follows_it() -> None:
    program = (
        "from common import telemetry\n"
        "log = telemetry.get_logger('early')\n"
        "telemetry.setup('s', 'i', 'INFO')\n"
        "log.info('late')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr)["module"] == "early"
