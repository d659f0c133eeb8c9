"""The simulator's own settings, `TOLLGATE_SIMULATOR__…`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from tollgate.settings import TollgateSettings


class SimulatorSettings(BaseModel):
    model_config = ConfigDict(frozen=True)

    listen: Annotated[str, Field(pattern=r"^[^\s:]+:\d{1,5}$")]
    data_dir: Path
    # The address that browsers and clients reach it by.
    public_url: str = ""
    # Seeds the draws of the scenario's rates; absent: different every time.
    seed: int | None = None
    # When what was answered `processing` has its outcome.
    late_s: Annotated[float, Field(ge=0)] = 2.0
    # Where webhooks go, and what they are signed with (`whsec_` and base64); without them none is sent.
    webhook_url: str | None = None
    webhook_secret: SecretStr | None = None

    @model_validator(mode="after")
    def _webhooks_are_signed(self) -> Self:
        if (self.webhook_url is None) != (self.webhook_secret is None):
            raise ValueError("webhook_url and webhook_secret are set together or not at all")
        return self


class Settings(TollgateSettings):
    log_level: str = "INFO"
    simulator: SimulatorSettings
