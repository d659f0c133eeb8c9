"""`TOLLGATE_RISK__…`: as the processor reads it, and as the service does when it is a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from processor.risk.rule_assessor import TIMEOUT_S
from processor.risk.rules import UNREACHABLE, Threshold
from tollgate.settings import TollgateSettings

HostPort = Annotated[str, Field(pattern=r"^[^\s:]+:[0-9]{1,5}$")]


class RiskSettings(BaseModel):
    """`address` is the service's; without one the rules run in the processor."""

    model_config = ConfigDict(frozen=True)

    # A score at or above this is declined. 100 is out of reach: no payment is declined for its score.
    decline_at: Threshold = UNREACHABLE
    rules_file: Path | None = None
    timeout_s: Annotated[float, Field(gt=0)] = TIMEOUT_S
    address: HostPort | None = None

    @model_validator(mode="after")
    def _one_place_for_the_rules(self) -> Self:
        if self.address and (self.rules_file or self.decline_at != UNREACHABLE):
            raise ValueError("with an address the rules and thresholds are the service's: set them there")
        return self


class ServiceSection(BaseModel):
    model_config = ConfigDict(frozen=True)

    listen: HostPort
    ops: HostPort
    decline_at: Threshold = UNREACHABLE
    rules_file: Path | None = None
    timeout_s: Annotated[float, Field(gt=0)] = TIMEOUT_S


class RiskServiceSettings(TollgateSettings):
    log_level: str = "INFO"
    postgres_dsn: Annotated[str, Field(repr=False)]  # may hold a password
    risk: ServiceSection
