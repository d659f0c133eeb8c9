"""The base of every part's settings: environment first, then one TOML file; read once, frozen, checked.

Names: `TOLLGATE_` and the field, nested with two underscores
(`TOLLGATE_PSP__SIMULATOR__MAX_PER_SECOND=2`). The file is named by `TOLLGATE_CONFIG`. Each part reads its
own subset in its own `settings.py` and nowhere else.
"""

from __future__ import annotations

import os
from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from tollgate.errors import ConfigurationError


class TollgateSettings(BaseSettings):
    """Frozen; unknown keys are another part's business and ignored."""

    model_config = SettingsConfigDict(
        env_prefix="TOLLGATE_", env_nested_delimiter="__", frozen=True, extra="ignore", validate_default=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        sources: list[PydanticBaseSettingsSource] = [init_settings, env_settings]
        if path := os.environ.get("TOLLGATE_CONFIG"):
            sources.append(TomlConfigSettingsSource(settings_cls, path))
        return tuple(sources)


SettingsT = TypeVar("SettingsT", bound=TollgateSettings)


def load(settings: type[SettingsT]) -> SettingsT:
    """Reads and checks the settings. Raises ConfigurationError naming every wrong key, without its value."""
    try:
        return settings()
    except ValidationError as error:
        problems = "; ".join(
            f"TOLLGATE_{'__'.join(str(part) for part in problem['loc']).upper()}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        )
        raise ConfigurationError(
            f"The settings can't be used: {problems}. Correct them and start again."
        ) from None
