"""What an operator does to an exchange: `exchange migrate`, `market`, `user`, `withdrawal` and `audit-log`.

They talk to PostgreSQL alone: who has its URL owns the exchange anyway, and so they work while the daemons
are stopped. With the local exchange stopped they start its PostgreSQL for as long as they need it, under the
lock that keeps `exchange up` out. Each act has its row in the audit log, as those of the admin service have.
"""

import argparse
import getpass
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC
from pathlib import Path

from common import admin, money
from common.acts import Acts
from common.audit_log import CLI, Actor, Entry, read_audit_log
from common.config import Settings
from common.core.messages import MarketStatus
from common.core.units import atoms_to_text, price_to_text, qty_to_text
from common.db import Connection, connect
from common.migrate import migrate
from daemons.local.ports import free_port
from daemons.local.postgres import embedded_postgres
from daemons.local.process import LocalError, Progress
from daemons.local.record import locked, read_run


@asynccontextmanager
async def reachable_postgres(settings: Settings, progress: Progress) -> AsyncIterator[str]:
    """The URL of the exchange's PostgreSQL: an external one, the running one, or started for the body."""
    data = Path(settings.data)
    if settings.postgres_url:
        yield settings.postgres_url
    elif (run := read_run(data)) is not None:
        yield run.postgres_url
    elif not (data / "pgdata").exists():
        raise LocalError(
            f"There is no exchange in {data}: name its folder with --data or EXCHANGE_DATA,"
            " or its PostgreSQL with EXCHANGE_POSTGRES_URL"
        )
    else:
        with locked(data):
            async with embedded_postgres(data, free_port(), progress) as (url, _):
                yield url


async def run_migrate(settings: Settings, progress: Progress) -> None:
    async with reachable_postgres(settings, progress) as url:
        applied = await migrate(url, settings.partitions)
    progress("\n".join(f"Applied {name}" for name in applied) or "The schema is up to date.")


@asynccontextmanager
async def _acting(settings: Settings, name: str) -> AsyncIterator[tuple[Connection, Acts]]:
    async with reachable_postgres(settings, quiet) as url, connect(url, f"exchange {name}") as connection:
        yield connection, Acts(connection, Actor(user_name(), CLI))


async def run_market(arguments: argparse.Namespace, settings: Settings, progress: Progress) -> None:
    symbol = getattr(arguments, "symbol", "")
    async with _acting(settings, "market") as (connection, acts):
        match arguments.action:
            case "list":
                await _list_markets(connection, progress)
            case "create":
                market = await acts.create_market(
                    symbol,
                    tick=arguments.tick,
                    lot=arguments.lot,
                    min_notional=arguments.min_notional,
                    scale=arguments.scale,
                    maker_fee_bps=arguments.maker_fee_bps,
                    taker_fee_bps=arguments.taker_fee_bps,
                )
                progress(f"Created {symbol} in partition {market.partition}.")
            case "halt":
                await acts.set_status(symbol, MarketStatus.HALTED)
                progress(f"{symbol} takes cancels only from here on.")
            case "resume":
                await acts.set_status(symbol, MarketStatus.ACTIVE)
                progress(f"{symbol} trades again from here on.")
            case "set-fees":
                await acts.set_fees(symbol, arguments.maker_fee_bps, arguments.taker_fee_bps)
                progress(f"{symbol} has the new fees from here on.")


async def run_user(arguments: argparse.Namespace, settings: Settings, progress: Progress) -> None:
    async with _acting(settings, "user") as (connection, acts):
        match arguments.action:
            case "list":
                await _list_users(connection, progress)
            case "create":
                progress(str(await acts.create_user(arguments.name)))
            case "token":
                progress(await acts.create_token(arguments.user_id))
            case "revoke":
                tokens, keys = await acts.revoke_user(arguments.user_id)
                progress(f"{tokens} tokens and {keys} keys of user {arguments.user_id} have ended.")
            case "deposit":
                done = await acts.deposit(
                    arguments.user_id, arguments.asset, arguments.amount, arguments.reference
                )
                progress(
                    f"Deposited {arguments.amount} {arguments.asset} for user {arguments.user_id}."
                    if done
                    else f"The deposit {arguments.reference!r} was made before; nothing has changed."
                )


async def run_withdrawal(arguments: argparse.Namespace, settings: Settings, progress: Progress) -> None:
    async with _acting(settings, "withdrawal") as (connection, acts):
        match arguments.action:
            case "list":
                await _list_withdrawals(connection, arguments, progress)
                return
            case "request":
                made, repeated = await acts.request_withdrawal(
                    arguments.user_id,
                    arguments.asset,
                    arguments.amount,
                    arguments.address,
                    arguments.reference,
                )
            case "complete":
                made, repeated = await acts.complete_withdrawal(
                    arguments.withdrawal_id, arguments.transaction
                )
            case _:
                made, repeated = await acts.cancel_withdrawal(arguments.withdrawal_id, arguments.reason)
        status = money.WithdrawalStatus(made.status).name
        before = ", as it was before; nothing has changed" if repeated else ""
        progress(f"Withdrawal {made.withdrawal_id} is {status}{before}.")


async def run_audit_log(arguments: argparse.Namespace, settings: Settings, progress: Progress) -> None:
    """The newest last, as in a terminal; with --json an object for each line."""
    async with _acting(settings, "audit-log") as (connection, _):
        entries = await read_audit_log(connection, limit=arguments.limit)
    for entry in reversed(entries):
        progress(_entry_as_json(entry) if arguments.json else _entry_as_text(entry))
    if not entries and not arguments.json:
        progress("No operator has done anything yet.")


def user_name() -> str:
    """Who runs this command, as the system knows them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # A container's user may have no name.
        return f"uid {os.getuid()}"


def quiet(line: str) -> None:
    """The answer of these commands is for programs too, so progress stays out of it."""


async def _list_markets(connection: Connection, progress: Progress) -> None:
    for market, last_price_ticks in await admin.list_markets(connection):
        last = price_to_text(market, last_price_ticks) if last_price_ticks else "-"
        progress(
            f"{market.symbol}  {market.status.name}  partition {market.partition}"
            f"  tick {price_to_text(market, 1)}  lot {qty_to_text(market, 1)}"
            f"  least notional {atoms_to_text(market.quote, market.min_notional_atoms)} {market.quote.symbol}"
            f"  fees {market.maker_fee_bps}/{market.taker_fee_bps} bps  last {last}"
        )


async def _list_users(connection: Connection, progress: Progress) -> None:
    for user in await admin.list_users(connection):
        progress(f"{user.user_id}  {user.name}  {user.tokens} tokens")


async def _list_withdrawals(
    connection: Connection, arguments: argparse.Namespace, progress: Progress
) -> None:
    status = None if arguments.all else money.WithdrawalStatus.PENDING
    assets = {asset.asset_id: asset for asset in await money.list_assets(connection)}
    for one in await money.list_withdrawals(connection, status=status, limit=arguments.limit):
        asset = assets[one.asset_id]
        progress(
            f"{one.withdrawal_id}  {money.WithdrawalStatus(one.status).name}  user {one.user_id}"
            f"  {atoms_to_text(asset, one.atoms)} {asset.symbol}  to {one.address}  {one.reference}"
            + (f"  ({one.closing})" if one.closing else "")
        )


def _entry_as_text(entry: Entry) -> str:
    said = "  ".join(f"{name}={value}" for name, value in entry.arguments.items() if value is not None)
    return (
        f"{entry.entry_id}  {entry.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}  {entry.actor} ({entry.via})"
        f"  {entry.act}  {entry.target or '-'}  {entry.outcome}" + (f"  {said}" if said else "")
    )


def _entry_as_json(entry: Entry) -> str:
    return json.dumps(
        {
            "entry_id": entry.entry_id,
            "at": entry.at.astimezone(UTC).isoformat(),
            "actor": entry.actor,
            "via": entry.via,
            "act": entry.act,
            "target": entry.target,
            "arguments": entry.arguments,
            "outcome": entry.outcome,
            "hash": entry.hash.hex(),
        }
    )
