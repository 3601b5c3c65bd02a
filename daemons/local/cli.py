"""The command `exchange`: its arguments, and its exit codes.

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
from daemons.local.audit import audit_as_json, audit_as_text, read_audit
from daemons.local.operator import run_market, run_migrate, run_user
from daemons.local.record import read_run
from daemons.local.replay import read_replay, replay_as_json, replay_as_text
from daemons.local.status import as_json, as_text, read_status
from daemons.local.up import up

Command = Callable[[argparse.Namespace, Settings], Awaitable[int]]


def main(words: list[str] | None = None) -> int:
    """Run one command; the exit code is for `sys.exit`."""
    arguments = _parser().parse_args(words)
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


async def _migrate(_: argparse.Namespace, settings: Settings) -> int:
    await run_migrate(settings, _progress)
    return 0


async def _audit(arguments: argparse.Namespace, settings: Settings) -> int:
    findings = await read_audit(settings)
    print(audit_as_json(findings) if arguments.json else audit_as_text(findings))
    return 0 if all(finding.ok for finding in findings) else 1


async def _replay(arguments: argparse.Namespace, settings: Settings) -> int:
    seed = random.randrange(1 << 32) if arguments.seed is None else arguments.seed  # noqa: S311  # no secret
    report = await read_replay(settings, points=arguments.points, seed=seed)
    print(replay_as_json(report) if arguments.json else replay_as_text(report))
    return 0 if report.ok else 1


async def _market(arguments: argparse.Namespace, settings: Settings) -> int:
    await run_market(arguments, settings, _progress)
    return 0


async def _user(arguments: argparse.Namespace, settings: Settings) -> int:
    await run_user(arguments, settings, _progress)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="exchange", description="An exchange, on this machine.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument(
        "--data", default=argparse.SUPPRESS, help="folder of the exchange (EXCHANGE_DATA; default .exchange)"
    )

    def add(name: str, command: Command, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, parents=[where])
        made.set_defaults(command=command)
        return made

    starter = add("up", _up, "Start everything, and stop it again on Ctrl-C")
    starter.add_argument("--demo", action="store_true", help="let two small bots trade")
    starter.add_argument("--port", type=_port, help="of the gateway (EXCHANGE_PORT; default 8100)")
    add("status", _status, "Health, leaders, watermarks, lags").add_argument("--json", action="store_true")
    auditor = add("audit", _audit, "Check the money and the books; exit code 1 and the rows on a violation")
    auditor.add_argument("--json", action="store_true")
    _add_replay(add("replay", _replay, "Run the engine again over all that is settled, and compare"))
    add("migrate", _migrate, "Bring the schema to what this version needs")
    _add_market_actions(add("market", _market, "Markets: list, create, set-fees, halt, resume"), where)
    _add_user_actions(add("user", _user, "Users: list, create, token, revoke, deposit"), where)
    return parser


def _add_replay(replayer: argparse.ArgumentParser) -> None:
    replayer.add_argument(
        "--points",
        type=_count,
        default=3,
        help="places in the log where a fresh engine is restored and must go on the same (default 3);"
        " each costs the memory of one more engine",
    )
    replayer.add_argument("--seed", type=int, help="draws those places; printed with the outcome")
    replayer.add_argument("--json", action="store_true")


def _add_market_actions(market: argparse.ArgumentParser, where: argparse.ArgumentParser) -> None:
    actions = market.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", parents=[where], help="all markets, as of the watermark")
    create = actions.add_parser("create", parents=[where], help="a new market; its units are for ever")
    create.add_argument("symbol", help="BASE-QUOTE")
    create.add_argument("--tick", required=True, help="step of the price, in the quote asset")
    create.add_argument("--lot", required=True, help="step of the quantity, in the base asset")
    create.add_argument("--min-notional", default="1", help="least price times quantity (default 1)")
    create.add_argument("--scale", type=int, default=8, help="decimals of an asset that is new (default 8)")
    create.add_argument("--maker-fee-bps", type=int, default=10)
    create.add_argument("--taker-fee-bps", type=int, default=20)
    fees = actions.add_parser(
        "set-fees", parents=[where], help="fees in basis points, for trades from here on"
    )
    fees.add_argument("symbol")
    fees.add_argument("--maker-fee-bps", type=int)
    fees.add_argument("--taker-fee-bps", type=int)
    for name, text in (("halt", "take cancels only"), ("resume", "trade again")):
        actions.add_parser(name, parents=[where], help=text).add_argument("symbol")


def _add_user_actions(user: argparse.ArgumentParser, where: argparse.ArgumentParser) -> None:
    actions = user.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", parents=[where], help="all users and how many tokens they have")
    actions.add_parser("create", parents=[where], help="prints the new user's id").add_argument("name")
    token = actions.add_parser(
        "token", parents=[where], help="prints a new token, which cannot be shown again"
    )
    revoke = actions.add_parser("revoke", parents=[where], help="ends all tokens of a user, within seconds")
    deposit = actions.add_parser(
        "deposit", parents=[where], help="puts money into an account, once for each reference"
    )
    for action in (token, revoke, deposit):
        action.add_argument("user_id", type=int)
    deposit.add_argument("asset")
    deposit.add_argument("amount")
    deposit.add_argument("--reference", required=True, help="yours; a repeated one changes nothing")


def _count(text: str) -> int:
    count = int(text)
    if count < 0:
        raise argparse.ArgumentTypeError("a count is 0 or more")
    return count


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError("a port is from 0 to 65535")
    return port


if __name__ == "__main__":
    sys.exit(main())
