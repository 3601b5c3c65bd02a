"""Local mode: users with test money, made and filled up again on request."""

import secrets

from common import admin, keys
from common.core.errors import Forbidden
from common.db import Connection, Pool
from common.identity.permissions import ALL
from common.identity.vault import Vault
from exchange.v1 import internal_pb2 as internal
from exchange.v1 import types_pb2 as types

GRANTS = {"USD": 1_000_000, "BTC": 100, "ETH": 1_000}  # In whole units.

# Locked before any account: each deposit counts into its asset, and who holds an account must not wait
# for one who waits for accounts (I9).
_ASSETS = "SELECT asset_id, symbol, scale FROM assets ORDER BY asset_id FOR NO KEY UPDATE"
_DONE = "SELECT 1 FROM deposits WHERE reference = ANY(%s) LIMIT 1"
_BALANCES = "SELECT asset_id, available_atoms, held_atoms FROM accounts WHERE user_id = %s ORDER BY asset_id"


class Testers:
    """Refuses everything outside local mode."""

    def __init__(self, pool: Pool, vault: Vault, *, local_mode: bool) -> None:
        self._pool = pool
        self._vault = vault
        self._local_mode = local_mode

    async def join(self) -> internal.JoinResponse:
        """A new user with the test balances, a token and an API key; no key where none can be sealed."""
        self._check_mode()
        async with self._pool.connection() as connection, connection.transaction():
            user_id = await admin.create_user(connection, f"test {secrets.token_hex(4)}")
            token = await admin.create_token(connection, user_id)
            key = await self._key(connection, user_id)
            await self._fill(connection, user_id)
            accounts = await balances(connection, user_id)
        return internal.JoinResponse(
            user_id=user_id, token=token, accounts=accounts, api_key=key[0], api_secret=key[1]
        )

    async def _key(self, connection: Connection, user_id: int) -> tuple[str, str]:
        if not self._vault.usable:
            return "", ""
        made = await keys.create_key(connection, self._vault, user_id, label="test", permissions=ALL)
        return made.api_key, made.secret or ""

    async def recharge(self, user_id: int, reference: str = "") -> internal.RechargeResponse:
        """Deposit what is missing to the test balances; more than that is left alone.

        Under one reference that is done once; what a user says in it is theirs alone.
        """
        self._check_mode()
        async with self._pool.connection() as connection, connection.transaction():
            await self._fill(connection, user_id, reference)
            accounts = await balances(connection, user_id)
        return internal.RechargeResponse(accounts=accounts)

    async def _fill(self, connection: Connection, user_id: int, reference: str = "") -> None:
        reference = f"test {user_id} {reference or secrets.token_hex(8)}"
        assets = await (await connection.execute(_ASSETS)).fetchall()
        references = {asset_id: f"{reference} {symbol}" for asset_id, symbol, _ in assets}
        if await (await connection.execute(_DONE, [list(references.values())])).fetchone():
            return
        have = {account.asset_id: account for account in await balances(connection, user_id)}
        for asset_id, symbol, scale in assets:
            account = have.get(asset_id, types.Account())
            missing = GRANTS.get(symbol, 0) * 10**scale - account.available_atoms - account.held_atoms
            if missing > 0:
                await admin.deposit(connection, user_id, asset_id, missing, references[asset_id])

    def _check_mode(self) -> None:
        if not self._local_mode:
            raise Forbidden("Test users exist in local mode only")


async def balances(connection: Connection, user_id: int) -> list[types.Account]:
    rows = await (await connection.execute(_BALANCES, [user_id])).fetchall()
    return [types.Account(asset_id=row[0], available_atoms=row[1], held_atoms=row[2]) for row in rows]
