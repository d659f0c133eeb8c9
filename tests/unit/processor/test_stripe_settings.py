"""Stripe's settings: one key, of the mode that is meant, from the environment or a file, shown nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from processor.bootstrap import _adapters
from processor.settings import ProcessorSettings, secret_in
from tests.unit.processor.test_processor_settings import REQUIRED
from tollgate.errors import ConfigurationError
from tollgate.settings import load

PREFIX = "TOLLGATE_PSP__STRIPE__"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)


def refusal(monkeypatch: pytest.MonkeyPatch, **set_: str) -> str:
    with monkeypatch.context() as patch:
        for name, value in set_.items():
            patch.setenv(PREFIX + name, value)
        with pytest.raises(ConfigurationError) as caught:
            load(ProcessorSettings)
        return caught.value.message


async def test_a_key_from_the_environment_or_a_file_makes_the_adapter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("rk_test_hidden-word\n")
    for name, value in (("API_KEY", "sk_test_hidden-word"), ("API_KEY_FILE", str(tmp_path / "key"))):
        with monkeypatch.context() as patch:
            patch.setenv(PREFIX + name, value)
            settings = load(ProcessorSettings)
            assert "hidden-word" not in repr(settings)
            adapters = _adapters(settings)
            assert sorted(adapters) == ["simulator", "stripe"]
            for adapter in adapters.values():
                await adapter.close()


def test_without_stripe_s_settings_there_is_no_stripe() -> None:
    assert load(ProcessorSettings).psp.stripe is None


def test_a_key_is_set_once_and_a_live_one_goes_over_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"API_KEY": "sk_test_hidden-word", "API_KEY_FILE": "/run/secrets/stripe"}
    assert "one of api_key and api_key_file" in refusal(monkeypatch, **both)
    assert "one of api_key and api_key_file" in refusal(monkeypatch, MAX_PER_SECOND="25")
    plain = {"API_KEY": "sk_live_hidden-word", "LIVE": "true", "URL": "http://127.0.0.1:8420"}
    told = refusal(monkeypatch, **plain)
    assert "https" in told
    assert "hidden-word" not in told


@pytest.mark.parametrize("content", ["", "sk test", "sk_test_\x00"])
def test_a_file_that_holds_no_key_is_refused_by_name_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / "key").write_text(content)
    with pytest.raises(ConfigurationError, match=r"psp\.stripe\.api_key"):
        secret_in("psp.stripe.api_key", None, tmp_path / "key")
    with pytest.raises(ConfigurationError, match="can't be read"):
        secret_in("psp.stripe.api_key", None, tmp_path / "nowhere")
