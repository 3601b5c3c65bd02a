"""Logs as JSON lines on stderr, and the shapes that the metrics share.

A line holds `time`, `level`, `service`, `instance` and `event`, then what was bound to the context
(`request_id`, `order_id`, `partition`) and what the call gave. Secrets do not belong into a log; as a
second line of defence, what looks like one is masked here, in fields, messages and tracebacks alike.

Metrics are `prometheus_client` objects at the top of the module that counts; their names start with
`exchange_` and end with their unit.
"""

import logging
import re
import sys
from typing import cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

# From a commit on a quiet machine to a call that has run into its deadline.
LATENCY_BUCKETS_S = (
    *(0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06),
    *(0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
)

_SECRET_FIELDS = frozenset({"authorization", "api_secret", "bearer", "password", "secret", "signature"})
_SECRET_TEXT = re.compile(r"(?<=://)[^\s/@\"]+(?=@)|(?<=Bearer )[^\s\"',]+")
_to_json = structlog.processors.JSONRenderer(default=str, ensure_ascii=False)
# Libraries that tell at INFO what only their authors want to know.
_TALKATIVE = ("aiokafka", "asyncio", "grpc", "hypercorn.access", "psycopg.pool")


def setup(service: str, instance: str, level: str) -> None:
    """Send this process's logs, and those of the libraries, to stderr; once, before anything is logged."""

    def name_process(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {"service": service, "instance": instance, **event}

    least = logging.getLevelNamesMapping()[level]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        name_process,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
        _mask_fields,
    ]
    structlog.configure(
        processors=[*shared, _render],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,  # Tests set it up more than once.
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _render],
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
        )
    )
    logging.root.handlers = [handler]
    logging.root.setLevel(least)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(least, logging.WARNING))
    logging.captureWarnings(True)


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger whose lines carry `module: name`; safe to make at import, before `setup`."""
    return cast(FilteringBoundLogger, structlog.get_logger(module=name))


def _mask_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        # A fencing token is a number and may be told; a token in text lets somebody in.
        if key in _SECRET_FIELDS or ("token" in key and isinstance(value, str | bytes)):
            event[key] = "***"
    return event


def _render(logger: WrappedLogger, method: str, event: EventDict) -> str:
    line = _to_json(logger, method, event)
    return _SECRET_TEXT.sub("***", line if isinstance(line, str) else line.decode())
