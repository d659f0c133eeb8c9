"""What a cdc process is told: read once, frozen, all problems reported together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tollgate.settings import TollgateSettings
from tollgate.topics import SHARDS_MAX

HostPort = Annotated[str, Field(pattern=r"^[^\s:]+:[0-9]{1,5}$")]


class ShardSettings(BaseModel):
    """The shard that this process stands beside."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: Annotated[int, Field(ge=0, lt=SHARDS_MAX)]
    data_dir: Path
    grpc: HostPort


class LedgerSettings(BaseModel):
    """Who is asked for missed statuses: comma-separated host:port; empty where no processor runs."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    targets: Annotated[str, Field(pattern=r"^([^\s:,]+:[0-9]{1,5}(,[^\s:,]+:[0-9]{1,5})*)?$")] = ""

    @property
    def target_list(self) -> list[str]:
        return self.targets.split(",") if self.targets else []


class CdcSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    ops: HostPort
    batch_records_max: Annotated[int, Field(ge=1, le=10_000)] = 1_000
    # Read but not yet delivered: what an outage of Kafka may hold in memory, and what a crash may repeat.
    in_flight_records_max: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    # The same while the shard commits and the tailer gains on it: the two may share a disk.
    in_flight_beside_load_max: Annotated[int, Field(ge=1, le=1_000_000)] = 2_000
    in_flight_kib_max: Annotated[int, Field(ge=1_024, le=2_097_151)] = 32 * 1_024
    # As long as one look's changes take to be queued; behind a request under way the next ones gather anyway.
    linger_ms: Annotated[float, Field(ge=0, le=1_000)] = 0.5
    status_batch_records_max: Annotated[int, Field(ge=1, le=10_000)] = 500

    @model_validator(mode="after")
    def _batch_fits_the_window(self) -> CdcSettings:
        if self.batch_records_max > self.in_flight_records_max:
            raise ValueError("batch_records_max must not be above in_flight_records_max")
        return self


class Settings(TollgateSettings):
    shard: ShardSettings
    ledger: LedgerSettings = LedgerSettings()
    kafka_bootstrap: Annotated[str, Field(min_length=1)]
    cdc: CdcSettings
    log_level: str = "INFO"
