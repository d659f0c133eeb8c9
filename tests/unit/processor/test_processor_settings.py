"""The processor's settings are checked as a whole before anything is opened."""

from __future__ import annotations

import pytest

from processor.settings import ProcessorSettings
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
