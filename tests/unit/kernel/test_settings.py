from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, SecretStr

from tollgate.errors import ConfigurationError
from tollgate.settings import TollgateSettings, load


class Limits(BaseModel):
    slots: int = 8
    seconds: float = 1.0


class Example(TollgateSettings):
    name: str
    key: SecretStr
    limits: Limits = Limits()


def test_the_environment_outranks_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "tollgate.toml"
    config.write_text('name = "file"\nkey = "from-file"\n[limits]\nslots = 3\nseconds = 2.5\n')
    monkeypatch.setenv("TOLLGATE_CONFIG", str(config))
    monkeypatch.setenv("TOLLGATE_NAME", "environment")
    monkeypatch.setenv("TOLLGATE_LIMITS__SLOTS", "5")
    settings = load(Example)
    assert (settings.name, settings.limits.slots, settings.limits.seconds) == ("environment", 5, 2.5)


def test_all_problems_come_together_by_name_and_without_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_LIMITS__SLOTS", "hunter2")
    monkeypatch.setenv("TOLLGATE_NAME", "x")
    with pytest.raises(ConfigurationError) as caught:
        load(Example)
    assert "TOLLGATE_LIMITS__SLOTS" in caught.value.message
    assert "TOLLGATE_KEY" in caught.value.message
    assert "hunter2" not in caught.value.message
