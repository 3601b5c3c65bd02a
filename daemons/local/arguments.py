"""The arguments of the command `exchange`, and what each is for."""

import argparse
from collections.abc import Awaitable, Callable, Mapping

from common.config import Settings

Command = Callable[[argparse.Namespace, Settings], Awaitable[int]]


def parser(commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """`commands` by their names; what is parsed has the chosen one in `command`."""
    made = argparse.ArgumentParser(prog="exchange", description="An exchange, on this machine.")
    subparsers = made.add_subparsers(required=True, metavar="COMMAND")
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument(
        "--data", default=argparse.SUPPRESS, help="folder of the exchange (EXCHANGE_DATA; default .exchange)"
    )

    def add(name: str, text: str) -> argparse.ArgumentParser:
        one = subparsers.add_parser(name, help=text, description=text, parents=[where])
        one.set_defaults(command=commands[name])
        return one

    _add_running(add)
    auditor = add("audit", "Check the money and the books; exit code 1 and the rows on a violation")
    auditor.add_argument("--json", action="store_true")
    _add_audit_log(add("audit-log", "What operators did, and who"))
    _add_replay(add("replay", "Run the engine again over all that is settled, and compare"))
    add("migrate", "Bring the schema to what this version needs")
    _add_market_actions(add("market", "Markets: list, create, set-fees, halt, resume"), where)
    text = "Partitions: show, and let one go on that stands still: resume, skip"
    _add_partition_actions(add("partition", text), where)
    _add_user_actions(add("user", "Users: list, create, token, revoke, deposit"), where)
    _add_key_actions(add("key", "API keys: list, create, rotate, revoke; and the master keys"), where)
    _add_withdrawal_actions(add("withdrawal", "Withdrawals: list, request, complete, cancel"), where)
    _add_certs(add("certs", "Make an authority and certificates for the daemons and the operator"))
    return made


def _add_running(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    starter = add("up", "Start everything, and stop it again on Ctrl-C")
    starter.add_argument("--demo", action="store_true", help="let two small bots trade")
    starter.add_argument("--port", type=_port, help="of the gateway (EXCHANGE_PORT; default 8100)")
    add("status", "Health, leaders, watermarks, lags").add_argument("--json", action="store_true")
    restarter = add("restart", "Restart the daemons of the running exchange, one after the other")
    restarter.add_argument("names", nargs="*", metavar="DAEMON", help="as in `status`; without any: all")


def _add_certs(certs: argparse.ArgumentParser) -> None:
    certs.add_argument("folder", metavar="DIR", help="an empty or a new folder; nothing is overwritten")
    certs.add_argument(
        "--host", action="append", default=[], help="a name or address of the public gRPC ports; repeatable"
    )
    certs.add_argument("--operator", help="who holds the operator's; by default the user of this system")


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


def _add_partition_actions(partition: argparse.ArgumentParser, where: argparse.ArgumentParser) -> None:
    actions = partition.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser(
        "show", parents=[where], help="where they stand, who leads them, what they wait for"
    )
    show.add_argument(
        "partition", type=_count, nargs="?", help="one of them, with what waits and what was done"
    )
    show.add_argument("--json", action="store_true")
    resume = actions.add_parser("resume", parents=[where], help="try again: the cause is gone")
    skip = actions.add_parser("skip", parents=[where], help="pass over what it stands at, which is kept")
    what = skip.add_mutually_exclusive_group(required=True)
    what.add_argument("--sequence", type=_count, help="a command; an order ends CANCELED, its hold returned")
    what.add_argument("--record", metavar="TOPIC:OFFSET", help="the record that it stopped at")
    skip.add_argument("--force", action="store_true", help="a command of a partition that is not stopped")
    for action in (resume, skip):
        action.add_argument("partition", type=_count)
        action.add_argument("--reason", required=True, help="why; it is written down")
        action.add_argument("--operator", help="who; by default the user of this system")


def _add_user_actions(user: argparse.ArgumentParser, where: argparse.ArgumentParser) -> None:
    actions = user.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", parents=[where], help="all users and how many tokens they have")
    actions.add_parser("create", parents=[where], help="prints the new user's id").add_argument("name")
    token = actions.add_parser(
        "token", parents=[where], help="prints a new token, which cannot be shown again"
    )
    revoke = actions.add_parser(
        "revoke", parents=[where], help="ends all tokens and keys of a user, within seconds"
    )
    deposit = actions.add_parser(
        "deposit", parents=[where], help="puts money into an account, once for each reference"
    )
    for action in (token, revoke, deposit):
        action.add_argument("user_id", type=int)
    deposit.add_argument("asset")
    deposit.add_argument("amount")
    deposit.add_argument("--reference", required=True, help="yours; a repeated one changes nothing")


def _add_key_actions(key: argparse.ArgumentParser, where: argparse.ArgumentParser) -> None:
    actions = key.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", parents=[where], help="without their secrets; ended ones too")
    listing.add_argument("--user", type=int, help="of one user")
    text = "prints the key and, on a second line, its secret, which cannot be shown again"
    create = actions.add_parser("create", parents=[where], help=text)
    create.add_argument("user_id", type=int)
    create.add_argument("--label", default="")
    create.add_argument("--permissions", default="READ,TRADE", help="of READ, TRADE, WITHDRAW")
    create.add_argument(
        "--network", action="append", default=[], help="a CIDR that it may be used from; repeatable"
    )
    create.add_argument("--days", type=_count, help="until it ends (default: never)")
    text = "prints a new key in the place of one, which goes on for a while"
    rotate = actions.add_parser("rotate", parents=[where], help=text)
    rotate.add_argument("api_key")
    rotate.add_argument("--overlap", type=_count, default=0, help="seconds; default: the old one ends now")
    for action in (create, rotate):
        action.add_argument(
            "--public-key", metavar="FILE", help="of an Ed25519 key, which has no secret here"
        )
    revoke = actions.add_parser("revoke", parents=[where], help="ends a key and its sessions, within seconds")
    revoke.add_argument("api_key")
    master = actions.add_parser("new-master", help="prints a new line for the file of master keys")
    master.add_argument("name")
    text = "seals every secret under the first master key; then the others may go"
    actions.add_parser("rotate-master", parents=[where], help=text)


def _add_withdrawal_actions(withdrawal: argparse.ArgumentParser, where: argparse.ArgumentParser) -> None:
    actions = withdrawal.add_subparsers(dest="action", required=True, metavar="ACTION")
    shown = actions.add_parser("list", parents=[where], help="those that wait, newest first")
    shown.add_argument("--all", action="store_true", help="those that have ended too")
    shown.add_argument("--limit", type=_count, default=100)
    request = actions.add_parser("request", parents=[where], help="holds the amount, for a user")
    request.add_argument("user_id", type=int)
    request.add_argument("asset")
    request.add_argument("amount")
    request.add_argument("address", help="where to")
    request.add_argument("--reference", required=True, help="once for each user; a repeat changes nothing")
    complete = actions.add_parser("complete", parents=[where], help="it has been paid: what was held leaves")
    cancel = actions.add_parser("cancel", parents=[where], help="it will not be: the hold is returned")
    for action in (complete, cancel):
        action.add_argument("withdrawal_id", type=_count)
    complete.add_argument("--transaction", required=True, help="that paid it; a repeat changes nothing")
    cancel.add_argument("--reason", required=True)


def _add_audit_log(log: argparse.ArgumentParser) -> None:
    log.add_argument("--limit", type=_count, default=100, help="the newest so many (default 100)")
    log.add_argument("--json", action="store_true", help="an object a line, with the hash that chains them")


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
