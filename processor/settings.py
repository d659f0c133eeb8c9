"""`TOLLGATE_…` as the processor reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from processor.risk import RiskSettings
from tollgate.ids import MERCHANT
from tollgate.settings import TollgateSettings

HostPort = Annotated[str, Field(pattern=r"^[^\s:]+:[0-9]{1,5}$")]


class ProcessorSection(BaseModel):
    model_config = ConfigDict(frozen=True)

    grpc: HostPort
    ops: HostPort
    instance: str | None = (
        None  # its name in the consumer group, the same at every start, shared with no other
    )
    concurrency: Annotated[int, Field(ge=1, le=4096)] = 256  # operations in flight
    claim_batch_max: Annotated[int, Field(ge=1)] = 200
    poll_interval_s: Annotated[float, Field(gt=0)] = 0.25
    lease_s: Annotated[float, Field(gt=0)] = 15.0
    intake_batch_max: Annotated[int, Field(ge=1)] = 500
    relay_batch_max: Annotated[int, Field(ge=1)] = 1000
    relay_poll_interval_s: Annotated[float, Field(gt=0)] = 0.1
    # Consumed changes stay in Kafka this long, so that they can be read again.
    changes_kept_s: Annotated[int, Field(ge=0)] = 7 * 24 * 3600
    sends_max: Annotated[int, Field(ge=1)] = 50
    pool_size_max: Annotated[int, Field(ge=4)] = 8


class Development(BaseModel):
    model_config = ConfigDict(frozen=True)

    api_key: Annotated[str | None, Field(repr=False)] = None
    merchant: Annotated[str | None, Field(pattern=f"^{MERCHANT.pattern}$")] = None

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.api_key is None) != (self.merchant is None):
            raise ValueError("api_key and merchant are set together or not at all")
        return self


class SimulatorSection(BaseModel):
    model_config = ConfigDict(frozen=True)

    url: str
    timeout_s: Annotated[float, Field(gt=0)] = 5.0
    max_per_second: Annotated[float | None, Field(gt=0)] = None  # calls over all processors; None: no limit


class PspSection(BaseModel):
    model_config = ConfigDict(frozen=True)

    default: str = "simulator"
    simulator: SimulatorSection | None = None


class ProcessorSettings(TollgateSettings):
    log_level: str = "INFO"
    postgres_dsn: Annotated[str, Field(repr=False)]  # may hold a password
    kafka_bootstrap: str
    ring_file: Path
    processor: ProcessorSection
    development: Development = Development()
    psp: PspSection = PspSection()
    risk: RiskSettings = RiskSettings()

    @model_validator(mode="after")
    def _a_lease_outlives_a_call(self) -> Self:
        if self.psp.simulator and self.processor.lease_s < 2 * self.psp.simulator.timeout_s:
            raise ValueError("processor.lease_s must be at least twice the longest PSP time-out")
        return self

    def budgets(self) -> dict[str, float]:
        """The PSPs that may be called only so often: calls per second over all processors, by name."""
        limit = self.psp.simulator.max_per_second if self.psp.simulator else None
        return {} if limit is None else {"simulator": limit}
