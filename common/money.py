"""Money that enters and leaves: deposits, and withdrawals, which are asked for, held, and then paid or not.

Each is one transaction. A deposit: ledger rows of kind 1, and the account has more. A withdrawal that is
asked for moves atoms from available to held; completed, they leave with ledger rows of kind 2; canceled,
they are available again. The locks follow I9: users, withdrawals, assets, accounts, one of each.

Does not promise: that anything happened outside. Who deposits or completes has seen to that.
"""

# ruff: noqa: S608  # The queries are put together from constants of this file.

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from psycopg.rows import class_row

from common.core.errors import Conflict, InsufficientFunds, InvalidQuantity, Malformed, NotFound
from common.core.messages import Asset
from common.db import Connection

DEPOSIT, WITHDRAWAL = 1, 2
WORLD_USER_ID = 0  # The other side of both; it has ledger rows and no account.
MAX_REFERENCE, MAX_ADDRESS = 100, 200

_ASSETS = "SELECT asset_id, symbol, scale FROM assets ORDER BY asset_id"
_LOCK_USER = "SELECT FROM users WHERE user_id = %s AND user_id > 0 FOR NO KEY UPDATE"
_DEPOSIT = """
INSERT INTO deposits (reference, user_id, asset_id, atoms) VALUES (%s, %s, %s, %s)
ON CONFLICT (reference) DO NOTHING
"""
_DEPOSITED = "SELECT user_id, asset_id, atoms FROM deposits WHERE reference = %s"
_LEDGER = """
INSERT INTO ledger (kind, reference, user_id, asset_id, delta_atoms)
VALUES (%(kind)s, %(reference)s, %(user)s, %(asset)s, %(atoms)s),
       (%(kind)s, %(reference)s, %(world)s, %(asset)s, -%(atoms)s)
"""
# In this order of terms nothing overflows.
_ISSUE = """
UPDATE assets SET issued_atoms = issued_atoms + %(atoms)s
WHERE asset_id = %(asset)s AND issued_atoms <= 9223372036854775807 - %(atoms)s
"""
_REDEEM = "UPDATE assets SET issued_atoms = issued_atoms - %(atoms)s WHERE asset_id = %(asset)s"
_CREDIT = """
INSERT INTO accounts (user_id, asset_id, available_atoms) VALUES (%(user)s, %(asset)s, %(atoms)s)
ON CONFLICT (user_id, asset_id) DO UPDATE SET available_atoms = accounts.available_atoms + %(atoms)s
"""
_HOLD = """
UPDATE accounts SET available_atoms = available_atoms - %(atoms)s, held_atoms = held_atoms + %(atoms)s
WHERE user_id = %(user)s AND asset_id = %(asset)s AND available_atoms >= %(atoms)s
"""
_PAY = """
UPDATE accounts SET held_atoms = held_atoms - %(atoms)s WHERE user_id = %(user)s AND asset_id = %(asset)s
"""
_RETURN = """
UPDATE accounts SET available_atoms = available_atoms + %(atoms)s, held_atoms = held_atoms - %(atoms)s
WHERE user_id = %(user)s AND asset_id = %(asset)s
"""
_COLUMNS = """
withdrawal_id, user_id, asset_id, atoms, address, reference, status, coalesce(closing, '') AS closing,
requested_at, ended_at
"""
_REQUEST = f"""
INSERT INTO withdrawals (user_id, asset_id, atoms, address, reference) VALUES (%s, %s, %s, %s, %s)
RETURNING {_COLUMNS}
"""
_BY_REFERENCE = f"SELECT {_COLUMNS} FROM withdrawals WHERE user_id = %s AND reference = %s"
_LOCK = f"SELECT {_COLUMNS} FROM withdrawals WHERE withdrawal_id = %s FOR NO KEY UPDATE"
_END = f"""
UPDATE withdrawals SET status = %s, closing = %s, ended_at = clock_timestamp() WHERE withdrawal_id = %s
RETURNING {_COLUMNS}
"""
_LIST = f"""
SELECT {_COLUMNS} FROM withdrawals
WHERE (%(user)s::bigint IS NULL OR user_id = %(user)s) AND (%(status)s::int IS NULL OR status = %(status)s)
  AND (%(before)s::bigint IS NULL OR withdrawal_id < %(before)s)
ORDER BY withdrawal_id DESC LIMIT %(limit)s
"""


class WithdrawalStatus(IntEnum):
    """Stored as these numbers."""

    PENDING = 1
    COMPLETED = 2
    CANCELED = 3


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A row of withdrawals. `closing`: "" while pending; the transaction that paid it, or why it is canceled.

    `reference` is its user's: another user may have the same.
    """

    withdrawal_id: int
    user_id: int
    asset_id: int
    atoms: int
    address: str
    reference: str
    status: int
    closing: str
    requested_at: datetime
    ended_at: datetime | None


async def list_assets(connection: Connection) -> list[Asset]:
    cursor = await connection.execute(_ASSETS)
    return [Asset(int(row[0]), str(row[1]), int(row[2])) for row in await cursor.fetchall()]


async def find_asset(connection: Connection, symbol: str) -> Asset:
    """Raises NotFound."""
    for asset in await list_assets(connection):
        if asset.symbol == symbol:
            return asset
    raise NotFound(f"There is no asset {symbol}")


async def deposit(
    connection: Connection, user_id: int, asset_id: int, amount_atoms: int, reference: str
) -> bool:
    """Put money into an account, once for each `reference`; False when that was done before.

    Raises Conflict when the reference is another deposit's, and InvalidQuantity when the exchange would
    hold more of the asset than 64 bits of atoms: the sum could come together in one account, and the
    settlement that does it would be impossible.
    """
    assert amount_atoms > 0
    check_text("reference", reference, MAX_REFERENCE)
    given = _given(user_id, asset_id, amount_atoms)
    async with connection.transaction():
        cursor = await connection.execute(_DEPOSIT, [reference, user_id, asset_id, amount_atoms])
        if cursor.rowcount == 0:
            known = await (await connection.execute(_DEPOSITED, [reference])).fetchone()
            if known != (user_id, asset_id, amount_atoms):
                raise Conflict(f"The reference {reference!r} is another deposit's")
            return False
        await connection.execute(_LEDGER, given | {"kind": DEPOSIT, "reference": reference})
        cursor = await connection.execute(_ISSUE, given)
        if cursor.rowcount == 0:
            raise InvalidQuantity("The exchange cannot hold so much of this asset")
        await connection.execute(_CREDIT, given)
    return True


async def request_withdrawal(
    connection: Connection, user_id: int, asset_id: int, amount_atoms: int, address: str, reference: str
) -> tuple[Withdrawal, bool]:
    """Hold the amount until the withdrawal is completed or canceled; once for each of a user's references.

    True with it: it was there before. Raises Conflict when that one is another, NotFound for a user who is
    not there, and InsufficientFunds.
    """
    assert amount_atoms > 0
    check_text("reference", reference, MAX_REFERENCE)
    check_text("address", address, MAX_ADDRESS)
    async with connection.transaction():
        if (await connection.execute(_LOCK_USER, [user_id])).rowcount == 0:
            raise NotFound(f"There is no user {user_id}")
        known = await _one(connection, _BY_REFERENCE, user_id, reference)
        if known is not None:
            if (known.asset_id, known.atoms, known.address) != (asset_id, amount_atoms, address):
                raise Conflict(f"The reference {reference!r} is another withdrawal's")
            return known, True
        cursor = await connection.execute(_HOLD, _given(user_id, asset_id, amount_atoms))
        if cursor.rowcount == 0:
            raise InsufficientFunds("The amount exceeds the available balance")
        made = await _one(connection, _REQUEST, user_id, asset_id, amount_atoms, address, reference)
        assert made is not None
    return made, False


async def complete_withdrawal(
    connection: Connection, withdrawal_id: int, transaction: str
) -> tuple[Withdrawal, bool]:
    """It has been paid, by this transaction outside: what was held leaves.

    True with it: that was said before. Raises NotFound, and Conflict for one that ended otherwise.
    """
    check_text("transaction", transaction, MAX_REFERENCE)
    async with connection.transaction():
        one = await _lock(connection, withdrawal_id)
        if _has_ended(one, WithdrawalStatus.COMPLETED, transaction):
            return one, True
        given = _given(one.user_id, one.asset_id, one.atoms)
        out = {"kind": WITHDRAWAL, "reference": f"withdrawal {withdrawal_id}", "atoms": -one.atoms}
        await connection.execute(_LEDGER, given | out)
        await connection.execute(_REDEEM, given)
        await connection.execute(_PAY, given)
        return await _end(connection, one, WithdrawalStatus.COMPLETED, transaction), False


async def cancel_withdrawal(
    connection: Connection, withdrawal_id: int, reason: str
) -> tuple[Withdrawal, bool]:
    """It will not be paid: what was held is available again.

    True with it: that was said before. Raises NotFound, and Conflict for one that ended otherwise.
    """
    check_text("reason", reason, MAX_ADDRESS)
    async with connection.transaction():
        one = await _lock(connection, withdrawal_id)
        if _has_ended(one, WithdrawalStatus.CANCELED, reason):
            return one, True
        await connection.execute(_RETURN, _given(one.user_id, one.asset_id, one.atoms))
        return await _end(connection, one, WithdrawalStatus.CANCELED, reason), False


async def list_withdrawals(
    connection: Connection,
    *,
    user_id: int | None = None,
    status: WithdrawalStatus | None = None,
    before_id: int | None = None,
    limit: int = 100,
) -> list[Withdrawal]:
    """Newest first; of one user, of one status, and older than one of them, where asked for."""
    given = {"user": user_id, "status": status, "before": before_id, "limit": limit}
    async with connection.cursor(row_factory=class_row(Withdrawal)) as cursor:
        await cursor.execute(_LIST.encode(), given)
        return await cursor.fetchall()


def check_text(name: str, text: str, most: int) -> None:
    """Raises Malformed for what is empty, too long, or not printable."""
    if not (0 < len(text) <= most and text.isprintable()):
        raise Malformed(f"{name} has 1 to {most} printable characters", {name: "not valid"})


def _given(user_id: int, asset_id: int, atoms: int) -> dict[str, int | str]:
    return {"user": user_id, "asset": asset_id, "atoms": atoms, "world": WORLD_USER_ID}


def _has_ended(one: Withdrawal, status: WithdrawalStatus, closing: str) -> bool:
    """True when it ended like this before; raises Conflict when it ended otherwise."""
    if one.status == WithdrawalStatus.PENDING:
        return False
    if (one.status, one.closing) != (status, closing):
        ended = WithdrawalStatus(one.status).name
        raise Conflict(f"Withdrawal {one.withdrawal_id} is {ended} already: {one.closing}")
    return True


async def _lock(connection: Connection, withdrawal_id: int) -> Withdrawal:
    one = await _one(connection, _LOCK, withdrawal_id)
    if one is None:
        raise NotFound(f"There is no withdrawal {withdrawal_id}")
    return one


async def _end(connection: Connection, one: Withdrawal, status: WithdrawalStatus, closing: str) -> Withdrawal:
    ended = await _one(connection, _END, status, closing, one.withdrawal_id)
    assert ended is not None
    return ended


async def _one(connection: Connection, statement: str, *given: object) -> Withdrawal | None:
    async with connection.cursor(row_factory=class_row(Withdrawal)) as cursor:
        await cursor.execute(statement.encode(), given)
        return await cursor.fetchone()
