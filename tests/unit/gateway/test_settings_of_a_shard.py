from __future__ import annotations

import os

import pytest

from gateway.settings import GatewaySettings
from tollgate.errors import ConfigurationError
from tollgate.settings import load

ENVIRONMENT = {
    "TOLLGATE_SHARD__ID": "5",
    "TOLLGATE_SHARD__DATA_DIR": "/nowhere",
    "TOLLGATE_SHARD__HTTP": "127.0.0.1:7105",
    "TOLLGATE_SHARD__GRPC": "127.0.0.1:7165",
    "TOLLGATE_CLIENT_SECRET_KEY": "0123456789abcdef" * 2,
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith("TOLLGATE_")]:
        monkeypatch.delenv(name)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_a_shard_needs_little(environment: pytest.MonkeyPatch) -> None:
    settings = load(GatewaySettings)
    assert settings.shard.id == 5
    assert settings.ledger.target_list == []
    assert settings.development is None
    assert settings.psp.names == {"simulator"}


def test_lists_and_optional_parts_are_read(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("TOLLGATE_LEDGER__TARGETS", "127.0.0.1:1,127.0.0.1:2")
    environment.setenv("TOLLGATE_DEVELOPMENT__API_KEY", "tg_sk_of_development")
    environment.setenv("TOLLGATE_DEVELOPMENT__MERCHANT", "demo")
    environment.setenv("TOLLGATE_PSP__NAMES", '["simulator", "stripe"]')
    environment.setenv("TOLLGATE_PSP__SIMULATOR__URL", "another part's business")
    settings = load(GatewaySettings)
    assert settings.ledger.target_list == ["127.0.0.1:1", "127.0.0.1:2"]
    assert settings.development is not None
    assert settings.development.merchant == "demo"
    assert settings.psp.names == {"simulator", "stripe"}
    assert "tg_sk_of_development" not in repr(settings)


@pytest.mark.parametrize("value", ["0", "128MiB", "2GiB", "134217728"])
def test_the_space_to_keep_free_is_off_or_enough_to_finish_in(
    environment: pytest.MonkeyPatch, value: str
) -> None:
    environment.setenv("TOLLGATE_SHARD__DISK_FREE_MIN", value)
    load(GatewaySettings)
    environment.setenv("TOLLGATE_SHARD__DISK_FREE_MIN", "127MiB")
    with pytest.raises(ConfigurationError, match=r"TOLLGATE_SHARD.*0 \(off\) or at least 128MiB"):
        load(GatewaySettings)


def test_every_problem_is_named_and_no_value_shown(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("TOLLGATE_SHARD__ID", "64")
    environment.setenv("TOLLGATE_CLIENT_SECRET_KEY", "hunter2")
    environment.setenv("TOLLGATE_PSP__DEFAULT", "unlisted")
    environment.setenv("TOLLGATE_COMMIT__RING_SLOTS", "10")
    with pytest.raises(ConfigurationError) as caught:
        load(GatewaySettings)
    for name in ("SHARD__ID", "CLIENT_SECRET_KEY", "PSP", "COMMIT"):
        assert f"TOLLGATE_{name}" in str(caught.value)
    assert "hunter2" not in str(caught.value)
