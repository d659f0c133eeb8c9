"""The processor's settings are checked as a whole before anything is opened."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from processor.settings import ProcessorSettings, secret_in
from tollgate.errors import ConfigurationError
from tollgate.settings import load

REQUIRED = {
    "TOLLGATE_POSTGRES_DSN": "postgresql://someone:hidden-word@127.0.0.1:7072/tollgate",
    "TOLLGATE_KAFKA_BOOTSTRAP": "127.0.0.1:7070",
    "TOLLGATE_RING_FILE": "/tmp/ring.json",  # noqa: S108  never opened here
    "TOLLGATE_PROCESSOR__GRPC": "127.0.0.1:7080",
    "TOLLGATE_PROCESSOR__OPS": "127.0.0.1:7081",
    "TOLLGATE_PSP__SIMULATOR__URL": "http://127.0.0.1:7073",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)


def test_the_stack_s_environment_is_enough_and_no_secret_shows() -> None:
    settings = load(ProcessorSettings)
    assert settings.processor.lease_s == 15.0
    assert "hidden-word" not in repr(settings)


def test_a_lease_shorter_than_two_calls_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_PROCESSOR__LEASE_S", "9")
    with pytest.raises(ConfigurationError, match="lease_s"):
        load(ProcessorSettings)


def test_a_development_key_without_its_merchant_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_DEVELOPMENT__API_KEY", "tg_sk_hidden-word")
    with pytest.raises(ConfigurationError, match="together") as caught:
        load(ProcessorSettings)
    assert "hidden-word" not in caught.value.message


def test_a_budget_is_a_positive_rate_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(ProcessorSettings).budgets() == {}
    monkeypatch.setenv("TOLLGATE_PSP__SIMULATOR__MAX_PER_SECOND", "2")
    assert load(ProcessorSettings).budgets() == {"simulator": 2.0}
    monkeypatch.setenv("TOLLGATE_PSP__SIMULATOR__MAX_PER_SECOND", "0")
    with pytest.raises(ConfigurationError, match="MAX_PER_SECOND"):
        load(ProcessorSettings)


ADYEN = {
    "TOLLGATE_PSP__ADYEN__API_KEY": "AQE-hidden-word",
    "TOLLGATE_PSP__ADYEN__MERCHANT_ACCOUNT": "TollgateECOM",
    "TOLLGATE_PSP__ADYEN__RETURN_URL": "https://shop.example/back",
}


def set_all(monkeypatch: pytest.MonkeyPatch, **changed: str) -> None:
    for name, value in (
        ADYEN | {f"TOLLGATE_PSP__ADYEN__{name}": value for name, value in changed.items()}
    ).items():
        monkeypatch.setenv(name, value)


def test_adyen_needs_its_key_account_and_a_way_back(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, MAX_PER_SECOND="2")
    settings = load(ProcessorSettings)
    assert settings.budgets() == {"adyen": 2.0}
    assert "hidden-word" not in repr(settings)
    monkeypatch.delenv("TOLLGATE_PSP__ADYEN__RETURN_URL")
    with pytest.raises(ConfigurationError, match="PSP__ADYEN__RETURN_URL") as caught:
        load(ProcessorSettings)
    assert "hidden-word" not in caught.value.message


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"LIVE": "true"}, "live_prefix"),
        ({"LIVE_PREFIX": "1797a841fbb37ca7-Tollgate"}, "live"),
        ({"LIVE": "true", "LIVE_PREFIX": "1797-Tollgate", "URL": "http://127.0.0.1:1"}, "Adyen alone"),
        ({"API_KEY_FILE": "/run/secrets/adyen"}, "one of api_key"),
        ({"TIMEOUT_S": "8"}, "lease_s"),
        ({"URL": "adyen.example"}, "URL"),
    ],
)
def test_settings_of_adyen_that_contradict_one_another_are_refused(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], match: str
) -> None:
    set_all(monkeypatch, **changed)
    with pytest.raises(ConfigurationError, match=match) as caught:
        load(ProcessorSettings)
    assert "hidden-word" not in caught.value.message


def test_a_secret_is_given_or_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "adyen"
    file.write_text("AQE-hidden-word\n")
    assert secret_in("psp.adyen.api_key", None, file) == "AQE-hidden-word"
    assert secret_in("psp.adyen.api_key", SecretStr("AQE-hidden-word"), None) == "AQE-hidden-word"
    file.write_text("AQE hidden-word\nand more")
    for wrong in (file, tmp_path / "missing"):
        with pytest.raises(ConfigurationError, match=r"psp\.adyen\.api_key") as caught:
            secret_in("psp.adyen.api_key", None, wrong)
        assert "hidden-word" not in caught.value.message


def test_the_budgets_and_the_lease_know_every_psp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_PSP__STRIPE__API_KEY", "sk_test_hidden-word")
    monkeypatch.setenv("TOLLGATE_PSP__STRIPE__MAX_PER_SECOND", "25")
    assert load(ProcessorSettings).budgets() == {"stripe": 25.0}
    monkeypatch.setenv("TOLLGATE_PSP__STRIPE__TIMEOUT_S", "8")
    with pytest.raises(ConfigurationError, match="lease_s"):
        load(ProcessorSettings)
