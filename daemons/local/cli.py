"""The command `exchange`: what it does, and its exit codes.

0   done
1   something cannot work, or `status`, `audit` or `replay` found it not well; a sentence says what
2   wrong arguments or a wrong setting
"""

import argparse
import logging
import random
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio
import psycopg

from common.config import BadSetting, Settings, load_settings
from common.core.errors import ExchangeError
from common.migrate import PartitionsAreFixed
from common.supervise import leaves
from daemons.local.arguments import Command, parser
from daemons.local.audit import audit_as_json, audit_as_text, read_audit
from daemons.local.certs import make_certificates
from daemons.local.keys import run_key
from daemons.local.operator import (
    run_audit_log,
    run_market,
    run_migrate,
    run_user,
    run_withdrawal,
    user_name,
)
from daemons.local.partition import run_partition
from daemons.local.process import Progress
from daemons.local.record import read_run
from daemons.local.replay import read_replay, replay_as_json, replay_as_text
from daemons.local.rolling import ask_restart
from daemons.local.status import as_json, as_text, read_status
from daemons.local.up import up

Act = Callable[[argparse.Namespace, Settings, Progress], Awaitable[None]]


def main(words: list[str] | None = None) -> int:
    """Run one command; the exit code is for `sys.exit`."""
    arguments = parser(_COMMANDS).parse_args(words)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # We say ourselves what does not answer.
    try:
        settings = _settings(arguments)
        command: Command = arguments.command
        return anyio.run(partial(command, arguments, settings))
    except BadSetting as error:
        return _say(error.message, 2)
    except psycopg.errors.UndefinedTable:
        return _say("The database has no exchange in it yet: run `exchange migrate`", 1)
    except (ExchangeError, PartitionsAreFixed, psycopg.OperationalError) as error:
        return _say(str(error), 1)
    except BaseExceptionGroup as group:
        if not all(isinstance(error, ExchangeError) for error in leaves(group)):
            raise
        return _say("\n".join(str(error) for error in leaves(group)), 1)


def _say(sentence: str, code: int) -> int:
    print(sentence, file=sys.stderr, flush=True)
    return code


def _settings(arguments: argparse.Namespace) -> Settings:
    """The environment's, with what the command line says instead."""
    said = {name: getattr(arguments, name, None) for name in ("data", "port")}
    changes = {name: value for name, value in said.items() if value is not None}
    settings = load_settings().model_copy(update=changes)
    return settings.model_copy(update={"data": str(Path(settings.data).absolute())})


def _progress(line: str) -> None:
    with suppress(OSError):  # The terminal or the pipe may be gone; that is no reason not to drain.
        print(line, flush=True)


async def _up(arguments: argparse.Namespace, settings: Settings) -> int:
    await up(settings, demo=arguments.demo, progress=_progress)
    return 0


async def _status(arguments: argparse.Namespace, settings: Settings) -> int:
    run = read_run(Path(settings.data))
    status = await read_status(run, settings.postgres_url or (run.postgres_url if run else ""))
    print(as_json(status) if arguments.json else as_text(status))
    return 0 if status.ready else 1


async def _restart(arguments: argparse.Namespace, settings: Settings) -> int:
    await ask_restart(Path(settings.data), arguments.names)
    return 0


async def _migrate(_: argparse.Namespace, settings: Settings) -> int:
    await run_migrate(settings, _progress)
    return 0


async def _audit(arguments: argparse.Namespace, settings: Settings) -> int:
    findings, stops = await read_audit(settings)
    print(audit_as_json(findings, stops) if arguments.json else audit_as_text(findings, stops))
    return 0 if all(finding.ok for finding in findings) else 1


async def _replay(arguments: argparse.Namespace, settings: Settings) -> int:
    seed = random.randrange(1 << 32) if arguments.seed is None else arguments.seed  # noqa: S311  # no secret
    report = await read_replay(settings, points=arguments.points, seed=seed)
    print(replay_as_json(report) if arguments.json else replay_as_text(report))
    return 0 if report.ok else 1


async def _operate(act: Act, arguments: argparse.Namespace, settings: Settings) -> int:
    await act(arguments, settings, _progress)
    return 0


async def _certs(arguments: argparse.Namespace, _: Settings) -> int:
    make_certificates(Path(arguments.folder), arguments.host, arguments.operator or user_name(), _progress)
    return 0


_COMMANDS: dict[str, Command] = {
    "up": _up,
    "status": _status,
    "restart": _restart,
    "audit": _audit,
    "audit-log": partial(_operate, run_audit_log),
    "replay": _replay,
    "migrate": _migrate,
    "market": partial(_operate, run_market),
    "partition": partial(_operate, run_partition),
    "user": partial(_operate, run_user),
    "key": partial(_operate, run_key),
    "withdrawal": partial(_operate, run_withdrawal),
    "certs": _certs,
}


if __name__ == "__main__":
    sys.exit(main())
