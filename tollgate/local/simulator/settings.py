"""The simulator's own settings, `TOLLGATE_SIMULATOR__…`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tollgate.settings import TollgateSettings


class SimulatorSettings(BaseModel):
    model_config = ConfigDict(frozen=True)

    listen: Annotated[str, Field(pattern=r"^[^\s:]+:\d{1,5}$")]
    data_dir: Path
    # The address that browsers and clients reach it by.
    public_url: str = ""
    # Seeds the draws of the scenario's rates; absent: different every time.
    seed: int | None = None


class Settings(TollgateSettings):
    log_level: str = "INFO"
    simulator: SimulatorSettings
