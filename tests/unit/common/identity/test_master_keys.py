"""Where master keys come from, and the file that local mode makes."""

import stat
from pathlib import Path

import pytest

from common.config import BadSetting
from common.identity.master_keys import FILE_NAME, vault_of, with_own_master_key
from common.identity.vault import new_master_key
from tests.harness.servers import bare_settings


def test_local_mode_makes_one_for_its_owner_alone_and_keeps_it(tmp_path: Path) -> None:
    settings = with_own_master_key(bare_settings(), tmp_path)
    path = tmp_path / FILE_NAME
    assert settings.master_keys_file == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    sealed = vault_of(settings).seal(b"secret", "ak")
    again = with_own_master_key(bare_settings(), tmp_path)
    assert vault_of(again).open(sealed, "ak") == b"secret"


def test_what_somebody_configured_is_taken(tmp_path: Path) -> None:
    key = new_master_key("k1")
    named = bare_settings(master_keys=key.as_line())
    assert with_own_master_key(named, tmp_path) is named
    assert not list(tmp_path.iterdir())
    file = tmp_path / "keys"
    file.write_text(key.as_line())
    sealed = vault_of(named).seal(b"secret", "ak")
    assert vault_of(bare_settings(master_keys_file=str(file))).open(sealed, "ak") == b"secret"


def test_without_any_there_is_a_vault_that_says_so() -> None:
    assert not vault_of(bare_settings()).usable


def test_a_wrong_one_stops_the_start_and_is_not_shown(tmp_path: Path) -> None:
    for settings, setting in (
        (bare_settings(master_keys="k1:hunter2"), "EXCHANGE_MASTER_KEYS:"),
        (bare_settings(master_keys_file=str(tmp_path / "none")), "EXCHANGE_MASTER_KEYS_FILE"),
        (bare_settings(master_keys_file="x", master_keys="y"), "not both"),
    ):
        with pytest.raises(BadSetting, match=setting) as caught:
            vault_of(settings)
        assert "hunter2" not in caught.value.message
    with pytest.raises(BadSetting, match="EXCHANGE_DATA"):
        with_own_master_key(bare_settings(), tmp_path / "none")
    assert "hunter2" not in repr(bare_settings(master_keys="k1:hunter2"))
