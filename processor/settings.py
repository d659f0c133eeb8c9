"""`TOLLGATE_…` as the processor reads it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from processor.risk import RiskSettings
from tollgate.errors import ConfigurationError
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
    concurrency: Annotated[int, Field(ge=1, le=4096)] = 768  # operations in flight
    claim_batch_max: Annotated[int, Field(ge=1)] = 200
    poll_interval_s: Annotated[float, Field(gt=0)] = 0.25
    lease_s: Annotated[float, Field(gt=0)] = 15.0
    intake_batch_max: Annotated[int, Field(ge=1)] = 256
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


class CalledSection(BaseModel):
    """What holds for the calls to any PSP."""

    model_config = ConfigDict(frozen=True)

    timeout_s: Annotated[float, Field(gt=0)] = 5.0
    max_per_second: Annotated[float | None, Field(gt=0)] = None  # calls over all processors; None: no limit


class SimulatorSection(CalledSection):
    url: str
    replayed_s_max: Annotated[float, Field(gt=0)] = math.inf  # within the key's retention, whatever it is


class AdyenSection(CalledSection):
    # For so long an Unknown is sent again; then it is parked. A 500 may be about settings at Adyen.
    replayed_s_max: Annotated[float, Field(gt=0)] = 24 * 3600.0
    api_key: SecretStr | None = None
    api_key_file: Path | None = None  # holds it in place of `api_key`
    merchant_account: Annotated[str, Field(min_length=1)]
    return_url: Annotated[str, Field(pattern="^https?://")]  # of payments that name none themselves
    live: bool = False
    live_prefix: Annotated[str | None, Field(pattern="^[A-Za-z0-9-]+$")] = None  # of the live endpoints
    url: Annotated[str | None, Field(pattern="^https?://")] = None  # in place of Adyen's host, for a double

    @model_validator(mode="after")
    def _one_key_and_a_prefix_when_live(self) -> Self:
        if (self.api_key is None) == (self.api_key_file is None):
            raise ValueError("one of api_key and api_key_file is set")
        if self.live != (self.live_prefix is not None):
            raise ValueError("live and live_prefix are set together or not at all")
        if self.live and self.url is not None:
            raise ValueError("a live key goes to Adyen alone: url is not set with live")
        return self


class StripeSection(CalledSection):
    api_key: SecretStr | None = None
    api_key_file: Path | None = None  # holds it in place of `api_key`
    live: bool = False  # the key is of the same mode
    # Where a payer comes back to whose payment names no address; without one, 3-D Secure declines.
    return_url: Annotated[str | None, Field(pattern="^[a-z][a-z0-9+.-]*://")] = None
    url: Annotated[str, Field(pattern="^https?://")] = "https://api.stripe.com"

    @model_validator(mode="after")
    def _one_key_and_tls_when_live(self) -> Self:
        if (self.api_key is None) == (self.api_key_file is None):
            raise ValueError("one of api_key and api_key_file is set")
        if self.live and not self.url.startswith("https://"):
            raise ValueError("a live key goes over https alone: correct url")
        return self


class PspSection(BaseModel):
    model_config = ConfigDict(frozen=True)

    default: str = "simulator"
    simulator: SimulatorSection | None = None
    adyen: AdyenSection | None = None
    stripe: StripeSection | None = None

    def called(self) -> dict[str, CalledSection]:
        """Those that are set up, by name."""
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: section for name, section in sections.items() if isinstance(section, CalledSection)}

    def longest_call_s(self) -> float:
        return max((section.timeout_s for section in self.called().values()), default=0.0)


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
        if self.processor.lease_s < 2 * self.psp.longest_call_s():
            raise ValueError("processor.lease_s must be at least twice the longest PSP time-out")
        return self

    def budgets(self) -> dict[str, float]:
        """The PSPs that may be called only so often: calls per second over all processors, by name."""
        limits = {name: section.max_per_second for name, section in self.psp.called().items()}
        return {name: limit for name, limit in limits.items() if limit is not None}


def secret_in(name: str, given: SecretStr | None, file: Path | None) -> str:
    """The secret, or its file's one line. Raises ConfigurationError, which repeats nothing of it."""
    secret = given.get_secret_value() if given is not None else ""
    if file is not None:
        try:
            secret = file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"{name}_file can't be read from {file}: {type(error).__name__}. Correct it and start again."
            ) from None
    if not secret or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise ConfigurationError(
            f"{name} is no key: it is empty or has characters that none has. Correct it and start again."
        )
    return secret
