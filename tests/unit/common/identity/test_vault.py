"""Secrets at rest: what comes out is what went in, or nothing."""

import base64
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.identity.vault import (
    BadMasterKey,
    MasterKey,
    Vault,
    VaultSealed,
    new_master_key,
    read_master_keys,
    sealed_under,
)

OLD, NEW = MasterKey("old", b"o" * 32), MasterKey("new", b"n" * 32)


@given(st.binary(max_size=200), st.text(max_size=60))
def test_what_comes_out_is_what_went_in(secret: bytes, owner: str) -> None:
    sealed = Vault([OLD]).seal(secret, owner)
    assert Vault([OLD]).open(sealed, owner) == secret
    assert secret not in sealed or len(secret) < 4


@given(st.data(), st.binary(min_size=1, max_size=60))
def test_any_other_byte_refuses(data: st.DataObject, secret: bytes) -> None:
    vault = Vault([OLD, NEW])
    sealed = bytearray(vault.seal(secret, "ak_owner"))
    place = data.draw(st.integers(0, len(sealed) - 1))
    sealed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(VaultSealed):
        vault.open(bytes(sealed), "ak_owner")


@given(st.data())
def test_what_is_cut_off_or_has_grown_refuses(data: st.DataObject) -> None:
    vault = Vault([OLD])
    sealed = vault.seal(b"secret", "ak_owner")
    for wrong in (sealed[: data.draw(st.integers(0, len(sealed) - 1))], sealed + b"x", sealed[1:]):
        with pytest.raises(VaultSealed):
            vault.open(wrong, "ak_owner")


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_secret_belongs_to_its_owner_alone(owner: str, other: str) -> None:
    vault = Vault([OLD])
    sealed = vault.seal(b"secret", owner)
    if owner != other:
        with pytest.raises(VaultSealed):
            vault.open(sealed, other)


def test_two_keys_are_live_while_one_follows_the_other() -> None:
    sealed = Vault([OLD]).seal(b"secret", "ak")
    both = Vault([NEW, OLD])
    assert both.open(sealed, "ak") == b"secret"
    assert not both.is_current(sealed)
    again = both.seal(b"secret", "ak")
    assert both.is_current(again)
    assert sealed_under(again) == "new"
    assert Vault([NEW]).open(again, "ak") == b"secret"
    with pytest.raises(VaultSealed):
        Vault([NEW]).open(sealed, "ak")


def test_the_same_name_with_another_key_opens_nothing() -> None:
    sealed = Vault([OLD]).seal(b"secret", "ak")
    with pytest.raises(VaultSealed):
        Vault([MasterKey("old", os.urandom(32))]).open(sealed, "ak")


def test_without_a_key_nothing_is_sealed() -> None:
    assert not Vault().usable
    with pytest.raises(VaultSealed, match="EXCHANGE_MASTER_KEYS_FILE"):
        Vault().seal(b"secret", "ak")


def test_a_file_names_the_keys_and_the_first_encrypts() -> None:
    first, second = new_master_key("2026-11"), new_master_key("2026-05")
    text = f"# ours\n\n{first.as_line()}  # the new one\n{second.as_line()}\n"
    assert read_master_keys(text) == [first, second]
    assert read_master_keys(f"{first.as_line()},{second.as_line()}") == [first, second]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing",
        "k1",
        "k1:",
        "k1:c2hvcnQ=",
        "k 1:" + base64.b64encode(b"x" * 32).decode(),
        "k1:" + base64.b64encode(b"x" * 33).decode(),
        "k1:" + "!" * 43 + "=",
        "\n".join([OLD.as_line(), OLD.as_line()]),
        "\n".join([OLD.as_line(), NEW.as_line(), new_master_key("third").as_line()]),
    ],
)
def test_a_wrong_file_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(BadMasterKey) as caught:
        read_master_keys(text)
    for word in text.split(":")[1:]:
        assert not word or word not in str(caught.value)


def test_a_master_key_is_not_shown() -> None:
    assert repr(OLD.key) not in repr(OLD)
    assert "ooo" not in repr(OLD)
