"""Local mode: users with test money, made and filled up again on request."""

import secrets

from common import admin
from common.core.errors import Forbidden
from common.db import Connection, Pool
from exchange.v1 import internal_pb2 as internal
from exchange.v1 import types_pb2 as types

GRANTS = {"USD": 1_000_000, "BTC": 100, "ETH": 1_000}  # In whole units.

# Locked before any account: each deposit counts into its asset, and who holds an account must not wait
# for one who waits for accounts (I9).
_ASSETS = "SELECT asset_id, symbol, scale FROM assets ORDER BY asset_id FOR NO KEY UPDATE"
_BALANCES = "SELECT asset_id, available_atoms, held_atoms FROM accounts WHERE user_id = %s ORDER BY asset_id"


class Testers:
    """Refuses everything outside local mode."""

    def __init__(self, pool: Pool, *, local_mode: bool) -> None:
        self._pool = pool
        self._local_mode = local_mode

    async def join(self) -> internal.JoinResponse:
        """A new user with the test balances and a token."""
        self._check_mode()
        async with self._pool.connection() as connection, connection.transaction():
            user_id = await admin.create_user(connection, f"test {secrets.token_hex(4)}")
            token = await admin.create_token(connection, user_id)
            await self._fill(connection, user_id)
            accounts = await balances(connection, user_id)
        return internal.JoinResponse(user_id=user_id, token=token, accounts=accounts)

    async def recharge(self, user_id: int) -> internal.RechargeResponse:
        """Deposit what is missing to the test balances; more than that is left alone."""
        self._check_mode()
        async with self._pool.connection() as connection, connection.transaction():
            await self._fill(connection, user_id)
            accounts = await balances(connection, user_id)
        return internal.RechargeResponse(accounts=accounts)

    async def _fill(self, connection: Connection, user_id: int) -> None:
        assets = await (await connection.execute(_ASSETS)).fetchall()
        have = {account.asset_id: account for account in await balances(connection, user_id)}
        for asset_id, symbol, scale in assets:
            account = have.get(asset_id, types.Account())
            missing = GRANTS.get(symbol, 0) * 10**scale - account.available_atoms - account.held_atoms
            if missing > 0:
                reference = f"test {user_id} {secrets.token_hex(8)}"
                await admin.deposit(connection, user_id, asset_id, missing, reference)

    def _check_mode(self) -> None:
        if not self._local_mode:
            raise Forbidden("Test users exist in local mode only")


async def balances(connection: Connection, user_id: int) -> list[types.Account]:
    rows = await (await connection.execute(_BALANCES, [user_id])).fetchall()
    return [types.Account(asset_id=row[0], available_atoms=row[1], held_atoms=row[2]) for row in rows]
