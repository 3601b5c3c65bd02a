"""API keys in the database: made, listed, ended, renewed, and sealed again."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from common import admin, keys
from common.core.errors import Conflict, Malformed, NotFound
from common.db import Connection, connect
from common.identity.permissions import READ, TRADE, WITHDRAW
from common.identity.signing import KeyKind
from common.identity.vault import MasterKey, Vault, VaultSealed
from common.migrate import migrate

pytestmark = pytest.mark.anyio

OLD, NEW = MasterKey("old", b"o" * 32), MasterKey("new", b"n" * 32)
PUBLIC, OTHER_PUBLIC = bytes(range(32)), b"\x05" + bytes(31)


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Connection]:
    await migrate(database, 1)
    async with connect(database, "test") as connection:
        yield connection


@pytest.fixture
async def user_id(connection: Connection) -> int:
    return await admin.create_user(connection, "alice")


async def secret_of(connection: Connection, vault: Vault, api_key: str) -> bytes:
    cursor = await connection.execute("SELECT sealed_secret FROM api_keys WHERE api_key = %s", [api_key])
    row = await cursor.fetchone()
    assert row is not None
    return vault.open(row[0], api_key)


async def test_a_secret_is_shown_once_and_stands_nowhere_in_the_clear(
    connection: Connection, user_id: int
) -> None:
    vault = Vault([OLD])
    made = await keys.create_key(connection, vault, user_id, label="bot", networks=["10.0.0.0/8", "::1"])
    assert made.secret is not None
    assert made.secret not in repr(made)
    assert await secret_of(connection, vault, made.api_key) == made.secret.encode()
    rows = await (await connection.execute("SELECT api_keys::text FROM api_keys")).fetchall()
    assert made.secret not in str(rows)
    assert made.secret.encode().hex() not in str(rows)
    [listed] = await keys.list_keys(connection, user_id)
    assert (listed.api_key, listed.label, listed.kind) == (made.api_key, "bot", KeyKind.HMAC)
    assert listed.networks == ("10.0.0.0/8", "::1/128")
    assert (listed.permissions, listed.expires_at, listed.revoked_at) == (READ | TRADE, None, None)


async def test_an_ed25519_key_needs_no_vault(connection: Connection, user_id: int) -> None:
    made = await keys.create_key(connection, Vault(), user_id, public_key=PUBLIC, permissions=READ)
    assert (made.kind, made.secret) == (KeyKind.ED25519, None)
    with pytest.raises(VaultSealed):
        await keys.create_key(connection, Vault(), user_id)


async def test_what_cannot_be_is_refused_and_changes_nothing(connection: Connection, user_id: int) -> None:
    vault = Vault([OLD])
    with pytest.raises(NotFound):
        await keys.create_key(connection, vault, user_id + 1)
    with pytest.raises(NotFound):
        await keys.create_key(connection, vault, -1)  # The fees of a partition.
    past = datetime.now(UTC) - timedelta(seconds=1)
    for wrong in (
        {"networks": ["10.0.0.1/8"]},
        {"label": "x" * 101},
        {"label": "two\nlines"},
        {"expires_at": past},
        {"expires_at": datetime(2999, 1, 1)},  # That is what is wrong with it.
        {"public_key": b"short"},
    ):
        with pytest.raises(Malformed):
            await keys.create_key(connection, vault, user_id, **wrong)
    assert await keys.list_keys(connection) == []


async def test_a_user_has_a_bounded_number_of_live_keys(
    connection: Connection, user_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "MOST_KEYS", 2)
    first = await keys.create_key(connection, Vault(), user_id, public_key=PUBLIC)
    await keys.create_key(connection, Vault(), user_id, public_key=PUBLIC)
    with pytest.raises(Conflict):
        await keys.create_key(connection, Vault(), user_id, public_key=PUBLIC)
    await keys.revoke_key(connection, first.api_key)
    await keys.create_key(connection, Vault(), user_id, public_key=PUBLIC)


async def test_a_key_is_revoked_once(connection: Connection, user_id: int) -> None:
    made = await keys.create_key(connection, Vault(), user_id, public_key=PUBLIC)
    assert await keys.revoke_key(connection, made.api_key)
    assert not await keys.revoke_key(connection, made.api_key)
    assert (await keys.find_key(connection, made.api_key)).revoked_at is not None
    with pytest.raises(NotFound):
        await keys.revoke_key(connection, "ak_nobody")


async def test_a_renewed_key_is_like_the_old_one_which_ends(connection: Connection, user_id: int) -> None:
    vault = Vault([OLD])
    end = datetime.now(UTC) + timedelta(days=1)
    old = await keys.create_key(
        connection, vault, user_id, label="bot", permissions=WITHDRAW, networks=["10.0.0.0/8"], expires_at=end
    )
    new = await keys.rotate_key(connection, vault, old.api_key, overlap_s=60)
    assert new.secret not in (None, old.secret)
    first, second = await keys.list_keys(connection, user_id)
    assert first.expires_at is not None
    assert first.expires_at < datetime.now(UTC) + timedelta(seconds=61)
    assert (second.label, second.permissions, second.networks, second.expires_at) == (
        "bot", WITHDRAW, ("10.0.0.0/8",), end,
    )  # fmt: skip
    await keys.rotate_key(connection, vault, new.api_key)
    with pytest.raises(Conflict):
        await keys.rotate_key(connection, vault, new.api_key)
    live = [key for key in await keys.list_keys(connection) if key.revoked_at is None]
    assert len(live) == 2  # The first, in its overlap, and the third.


async def test_a_renewed_key_is_of_the_same_kind(connection: Connection, user_id: int) -> None:
    old = await keys.create_key(connection, Vault(), user_id, public_key=PUBLIC)
    with pytest.raises(Malformed):
        await keys.rotate_key(connection, Vault([OLD]), old.api_key)
    assert (await keys.find_key(connection, old.api_key)).revoked_at is None
    new = await keys.rotate_key(connection, Vault(), old.api_key, public_key=OTHER_PUBLIC)
    assert new.kind is KeyKind.ED25519


async def test_all_secrets_move_to_the_new_master_key(
    connection: Connection, user_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_RESEAL_AT_ONCE", 2)
    made = [await keys.create_key(connection, Vault([OLD]), user_id) for _ in range(5)]
    await keys.create_key(connection, Vault(), user_id, public_key=PUBLIC)
    assert await keys.reseal_keys(connection, Vault([NEW, OLD])) == 5
    assert await keys.reseal_keys(connection, Vault([NEW, OLD])) == 0
    for key in made:
        assert key.secret is not None
        assert await secret_of(connection, Vault([NEW]), key.api_key) == key.secret.encode()


async def test_one_secret_that_cannot_be_opened_does_not_keep_the_others(
    connection: Connection, user_id: int
) -> None:
    vault = Vault([OLD])
    made = [await keys.create_key(connection, vault, user_id) for _ in range(3)]
    broken = sorted(made, key=lambda key: key.api_key)[1]
    await connection.execute(
        "UPDATE api_keys SET sealed_secret = set_byte(sealed_secret, 20, 255 - get_byte(sealed_secret, 20))"
        " WHERE api_key = %s",
        [broken.api_key],
    )
    with pytest.raises(VaultSealed):
        await keys.reseal_keys(connection, Vault([NEW, OLD]))
    for key in made:
        if key is not broken:
            assert await secret_of(connection, Vault([NEW]), key.api_key)
