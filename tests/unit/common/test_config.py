"""A wrong setting stops the start with a sentence that names its variable."""

import os

import pytest

from common.config import BadSetting, Settings, load_settings


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("EXCHANGE_")]:
        monkeypatch.delenv(name)


def test_the_defaults_work() -> None:
    settings = load_settings()
    assert settings.port == 8100
    assert settings.lease_renew_s < settings.lease_s / 2
    assert settings.name.count(":") == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EXCHANGE_PORT", "eighty"),
        ("EXCHANGE_PORT", "65536"),
        ("EXCHANGE_ORDERS_PORT", "-1"),
        ("EXCHANGE_PARTITIONS", "0"),
        ("EXCHANGE_PARTITIONS", "4.5"),
        ("EXCHANGE_LEASE_S", "0"),
        ("EXCHANGE_LEASE_S", "soon"),
        ("EXCHANGE_LOG_LEVEL", "LOUD"),
        ("EXCHANGE_LOCAL_MODE", "perhaps"),
        ("EXCHANGE_TOPIC_PREFIX", "no such prefix"),
        ("EXCHANGE_TOKEN_CACHE_S", "2.5"),
        ("EXCHANGE_BATCH_ORDERS", "5001"),
        ("EXCHANGE_QUEUE_ORDERS", ""),
        ("EXCHANGE_KAFKA_REPLICATION", "8"),
        ("EXCHANGE_BODY_LIMIT_BYTES", "12"),
    ],
)
def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadSetting) as caught:
        load_settings()
    assert name in caught.value.message
    assert repr(value) in caught.value.message
    assert "\n" not in caught.value.message


def test_renewals_that_could_come_too_late_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXCHANGE_LEASE_S", "1.0")
    with pytest.raises(BadSetting, match="EXCHANGE_LEASE_RENEW_S"):
        load_settings()
    monkeypatch.setenv("EXCHANGE_LEASE_RENEW_S", "0.3")
    assert load_settings().lease_s == 1.0


@pytest.mark.parametrize(("host", "works"), [("127.0.0.1", True), ("localhost", True), ("0.0.0.0", False)])
def test_test_money_is_for_loopback_only(monkeypatch: pytest.MonkeyPatch, host: str, works: bool) -> None:
    monkeypatch.setenv("EXCHANGE_LOCAL_MODE", "true")
    monkeypatch.setenv("EXCHANGE_HOST", host)
    if works:
        assert load_settings().local_mode
    else:
        with pytest.raises(BadSetting, match="EXCHANGE_HOST"):
            load_settings()


def test_every_setting_says_what_it_is_for() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_an_instance_names_itself_or_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().name.endswith(f":{os.getpid()}")
    monkeypatch.setenv("EXCHANGE_INSTANCE", "matching-1")
    assert load_settings().name == "matching-1"
