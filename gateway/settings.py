"""What a shard is told: read once, frozen, all problems reported together."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ByteSize, ConfigDict, Field, SecretStr, StringConstraints, model_validator

from gateway.http.server import ServerName
from tollgate.ids import MERCHANT
from tollgate.settings import TollgateSettings
from tollgate.topics import SHARDS_MAX

HostPort = Annotated[str, StringConstraints(pattern=r"^[^\s:]+:[0-9]{1,5}$")]
_MIB = 1024 * 1024
_GIB = 1024 * _MIB
# A shard that grew into a bound of 24 MiB met ENOSPC in 9 of 14 runs; of 32 and 64 MiB 13 were left, of 128
# MiB 82, of 256 MiB 206 (docs/decisions/0010).
DISK_FREE_FLOOR = 128 * _MIB


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ShardSettings(_Section):
    id: Annotated[int, Field(ge=0, lt=SHARDS_MAX)]
    data_dir: Path
    http: HostPort
    grpc: HostPort
    server: ServerName = "httptools"
    # Below this, new payments are refused; 0: never. What is under way then takes up to 51 MiB more, measured
    # on a store of 250 MiB. The rest of the default is computed, not measured: the largest compaction that
    # RocksDB plans is 25 files of 64 MiB, 1.6 GiB. ENOSPC would end the shard.
    disk_free_min: Annotated[ByteSize, Field(ge=0)] = ByteSize(2 * _GIB)
    # What may wait for Kafka: an outage of 9 hours at 1,000 payments/s of 500 bytes, 2 hours at 5,000/s.
    backlog_bytes_max: Annotated[ByteSize, Field(ge=_MIB)] = ByteSize(16 * _GIB)

    @model_validator(mode="after")
    def _there_is_room_to_finish_in(self) -> ShardSettings:
        if 0 < self.disk_free_min < DISK_FREE_FLOOR:
            raise ValueError(
                "disk_free_min must be 0 (off) or at least 128MiB: with less the disk does get full"
            )
        return self


class LedgerSettings(_Section):
    # Comma-separated host:port; empty where no processor runs.
    targets: Annotated[str, StringConstraints(pattern=r"^([^\s:,]+:[0-9]{1,5}(,[^\s:,]+:[0-9]{1,5})*)?$")] = (
        ""
    )
    refresh_s: Annotated[float, Field(gt=0)] = 5.0
    # Of operations, changes and lists, at a time. A quarter of what one Ledger takes.
    in_flight_max: Annotated[int, Field(ge=1)] = 256

    @property
    def target_list(self) -> list[str]:
        return self.targets.split(",") if self.targets else []


class DevelopmentSettings(_Section):
    """A key that is known without the Ledger."""

    api_key: Annotated[SecretStr, Field(min_length=16)]
    merchant: Annotated[str, StringConstraints(pattern=f"^(?:{MERCHANT.pattern})$")]


class WebhookSettings(_Section):
    """A PSP's webhooks: taken once there is a secret. Several stand side by side, separated by white space,
    while one replaces another; the file's count as well.
    """

    webhook_secret: SecretStr | None = None
    webhook_secret_file: Path | None = None
    # Networks that the PSP calls from, as it publishes them; empty: from anywhere.
    webhook_sources: tuple[IPv4Network | IPv6Network, ...] = ()

    @property
    def takes_webhooks(self) -> bool:
        return self.webhook_secret is not None or self.webhook_secret_file is not None

    @model_validator(mode="after")
    def _sources_have_a_secret(self) -> WebhookSettings:
        if self.webhook_sources and not self.takes_webhooks:
            raise ValueError("webhook_sources is set without webhook_secret or webhook_secret_file")
        return self


class PspSettings(_Section):
    default: str = "simulator"
    names: Annotated[frozenset[str], Field(min_length=1)] = frozenset({"simulator"})
    # One for each verifier in tollgate/webhooks, under its name.
    adyen: WebhookSettings = WebhookSettings()
    simulator: WebhookSettings = WebhookSettings()
    stripe: WebhookSettings = WebhookSettings()

    @model_validator(mode="after")
    def _default_is_known(self) -> PspSettings:
        if self.default not in self.names:
            raise ValueError("default must be one of names")
        return self

    def webhooks(self) -> dict[str, WebhookSettings]:
        """By PSP, those that are taken."""
        by_name = {name: getattr(self, name) for name in type(self).model_fields}
        return {
            name: section
            for name, section in by_name.items()
            if isinstance(section, WebhookSettings) and section.takes_webhooks
        }


class CommitSettings(_Section):
    # Half a second of payments at 8k/s: a hiccup of the disk that long refuses nobody, and whoever waited has
    # four batches before him. Where the loop is the limit, `turn_ms_max` bounds the wait.
    ring_slots: Annotated[int, Field(ge=2)] = 4_096
    ring_bytes_max: Annotated[int, Field(ge=_MIB)] = 64 * _MIB
    # 4 us + 0.9 us a record are spent on the loop: about 2 ms for a full batch.
    batch_count_max: Annotated[int, Field(ge=1)] = 1_024
    # What a 202 waits for beside the local fsync: nothing, or Kafka's delivery report.
    ack: Literal["durable", "replicated"] = "durable"
    # Below nginx's 35 s, after which the client would hear of a time-out of nginx's own.
    ack_wait_s: Annotated[float, Field(gt=0, le=30)] = 5.0
    # At 500/s, what comes in 5 s three times over; a request holds about 5 KB.
    ack_waiting_max: Annotated[int, Field(ge=1)] = 8_192

    @model_validator(mode="after")
    def _ring_holds_two_batches(self) -> CommitSettings:
        if self.ring_slots < 2 * self.batch_count_max:
            raise ValueError("ring_slots must be at least twice batch_count_max")
        return self


class WatchdogSettings(_Section):
    """A commit that waits for the disk: unready after `stalled_s`, the end of the process after `hung_s`."""

    stalled_s: Annotated[float, Field(gt=0)] = 2.0
    hung_s: Annotated[float, Field(gt=0)] = 30.0
    # With a failed store the process stays as long as this to say so in /readyz, then leaves for a restart.
    linger_s: Annotated[float, Field(ge=0)] = 30.0

    @model_validator(mode="after")
    def _unready_comes_first(self) -> WatchdogSettings:
        if self.stalled_s >= self.hung_s:
            raise ValueError("stalled_s must be below hung_s")
        return self


class OverloadSettings(_Section):
    """What is refused, so that the rest is answered in time and memory stays as it is (decision 11)."""

    # How long one turn of the loop takes requests; who was taken waits two or three turns.
    turn_ms_max: Annotated[float, Field(gt=0)] = 50.0
    # A look at clock and ring costs 0.4 us; at 60 us a request this many pass in half a millisecond.
    look_every: Annotated[int, Field(ge=1)] = 8
    connections_max: Annotated[int, Field(ge=1)] = 8192
    ops_reserve: Annotated[int, Field(ge=1)] = 64
    # Bodies that are not whole and pipelined requests that wait, over all connections.
    held_bytes_max: Annotated[int, Field(ge=_MIB)] = 64 * _MIB


class LimitsSettings(_Section):
    """What one merchant's keys get of this shard: requests a second, 0 for no limit, and how many at once."""

    key_post_per_second: Annotated[float, Field(ge=0)] = 0
    key_post_burst: Annotated[int, Field(ge=1)] = 100
    key_get_per_second: Annotated[float, Field(ge=0)] = 0
    key_get_burst: Annotated[int, Field(ge=1)] = 200
    # 200 bytes each.
    keys_max: Annotated[int, Field(ge=1)] = 10_000


class LookUpSettings(_Section):
    """What is asked of other shards and of the Ledger about a payment (decision 20)."""

    # A dead process refuses at once; this is for one that hangs.
    timeout_s: Annotated[float, Field(gt=0, le=10)] = 0.5
    # 0.5 ms each: more than a shard gets through in a tenth of a second.
    in_flight_max: Annotated[int, Field(ge=1)] = 256
    # An open payment that stands still so long is looked up in the Ledger, at most this often.
    refresh_after_s: Annotated[float, Field(gt=0)] = 30.0
    # A read that a shard can't be asked about waits so long for its payment to come to the Ledger.
    shipped_within_s: Annotated[float, Field(ge=0, le=10)] = 1.0


class RetentionSettings(_Section):
    changes_s: Annotated[int, Field(ge=0)] = 24 * 3600
    changes_bytes_max: Annotated[int, Field(ge=_MIB)] = 1024 * _MIB
    payments_s: Annotated[int, Field(ge=0)] = 30 * 24 * 3600
    interval_s: Annotated[float, Field(gt=0)] = 10.0


class GatewaySettings(TollgateSettings):
    log_level: str = "INFO"
    shard: ShardSettings
    # Who owns which id, now and before; without one this shard owns all.
    ring_file: Path | None = None
    look_ups: LookUpSettings = LookUpSettings()
    ledger: LedgerSettings = LedgerSettings()
    client_secret_key: Annotated[SecretStr, Field(min_length=32)]
    development: DevelopmentSettings | None = None
    psp: PspSettings = PspSettings()
    commit: CommitSettings = CommitSettings()
    overload: OverloadSettings = OverloadSettings()
    limits: LimitsSettings = LimitsSettings()
    retention: RetentionSettings = RetentionSettings()
    watchdog: WatchdogSettings = WatchdogSettings()
    # A payment that was not first sent to a PSP by then fails as expired.
    expires_after_s: Annotated[int, Field(ge=1)] = 3600
