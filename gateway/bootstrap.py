"""Builds a shard from its settings: the one place where adapters are made and joined."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gateway.change_log import RetentionPolicy
from gateway.clock_trust import ClockTrust
from gateway.committer import Committer, Waiting
from gateway.elsewhere import Elsewhere, Ledger, LookUpPolicy, OtherShards, RingNow
from gateway.errors import StoreFailed
from gateway.flusher import Flusher, ThreadFlusher
from gateway.headroom import Headroom, HeadroomPolicy
from gateway.health import Health, Patience
from gateway.http.access import Access
from gateway.http.cold import ColdApp
from gateway.http.documents import document_routes
from gateway.http.operations import OperationHandlers
from gateway.http.ops import ops_routes
from gateway.http.payments import PaymentHandlers, PaymentPolicy
from gateway.http.routes import HttpApp
from gateway.http.vault import AskedVault, VaultHandlers
from gateway.http.webhooks import WebhookEndpoint, WebhookHandlers
from gateway.ledger_calls import AskedLedger, LedgerCalls
from gateway.load_shedding import Gate
from gateway.merchants import Merchants
from gateway.metrics import Metrics
from gateway.rate_limits import KeyLimits, Rate, RateLimit
from gateway.replication import Replication, ReplicationPolicy
from gateway.retention import Retention
from gateway.ring import Ring
from gateway.ring_watch import RingWatch
from gateway.rpc.ledger import LedgerClient
from gateway.rpc.other_shards import OtherShardsClient
from gateway.rpc.vault import VaultClient
from gateway.settings import GatewaySettings, WebhookSettings
from gateway.snapshots import Keeper
from gateway.store.folder import open_watermark, prepare_folder
from gateway.store.gauges import watch_store
from gateway.store.interface import Store
from gateway.store.opening import Opened, newest_change_us, open_store
from gateway.store.rocks import RocksStore
from tollgate.client_secrets import ClientSecrets
from tollgate.clock import Clock, SystemClock
from tollgate.errors import ConfigurationError
from tollgate.shard_layout import DATABASE_DIR, META, META_MERCHANTS
from tollgate.watermark import WatermarkWriter
from tollgate.webhooks import VERIFIERS


@dataclass(frozen=True, slots=True)
class Shard:
    """Everything of a shard that decides or stores; what listens is added by `app`."""

    settings: GatewaySettings
    store: Store
    flusher: ThreadFlusher
    watermark: WatermarkWriter
    committer: Committer
    merchants: Merchants
    health: Health
    metrics: Metrics
    retention: Retention
    headroom: Headroom
    replication: Replication | None
    ring: RingWatch
    ledger: LedgerClient
    other_shards: OtherShardsClient
    http: HttpApp


def build(settings: GatewaySettings, on_failure: Callable[[str], None]) -> Shard:
    """Opens the store, so it blocks. Call it on the loop that will serve. Raises TollgateError."""
    data_dir = settings.shard.data_dir
    left_behind = prepare_folder(data_dir)
    health, metrics, clock = build_health(settings), Metrics(), SystemClock()
    ring = RingWatch(settings.ring_file, settings.shard.id, settings.retention.payments_s * 1_000_000, clock)
    store = RocksStore(data_dir / DATABASE_DIR)
    opened = open_store(store, settings.shard.id, os.urandom, left_behind)
    merchants = _merchants(settings, store)
    flusher = ThreadFlusher(store, asyncio.get_running_loop())
    watermark = open_watermark(data_dir)

    def failed(error: StoreFailed) -> None:
        health.failure = f"The store failed: {error.message}"
        if replication is not None:
            replication.abandon(health.failure)
        on_failure(error.message)

    committer = build_committer(settings, store, opened, flusher, watermark, clock, metrics, failed)
    replication = build_replication(settings, committer, clock, metrics)
    watch(metrics, committer, health)
    watch_store(metrics, store)
    headroom = build_headroom(settings, committer, health, metrics, lambda: free_bytes(data_dir))
    retention = Retention(
        committer,
        store,
        clock,
        RetentionPolicy(settings.retention.changes_s * 1_000_000, settings.retention.changes_bytes_max),
        settings.retention.payments_s * 1_000_000,
        ClockTrust(newest_change_us(store, opened.log), clock.now_us(), clock.monotonic()),
    )
    ledger, other_shards = LedgerClient(settings.ledger.target_list), OtherShardsClient()
    elsewhere = build_elsewhere(settings, ring, ledger, other_shards, committer, clock, metrics)
    http = build_http(
        settings,
        committer,
        replication,
        elsewhere,
        ledger,
        VaultClient(ledger),
        merchants,
        health,
        metrics,
        clock,
    )
    return Shard(
        settings,
        store,
        flusher,
        watermark,
        committer,
        merchants,
        health,
        metrics,
        retention,
        headroom,
        replication,
        ring,
        ledger,
        other_shards,
        http,
    )


def free_bytes(path: Path) -> int:
    """What a process without privileges may still write there. Raises OSError."""
    volume = os.statvfs(path)
    return volume.f_bavail * volume.f_frsize


def build_health(settings: GatewaySettings) -> Health:
    return Health(patience=Patience(settings.watchdog.stalled_s, settings.watchdog.hung_s))


def build_headroom(
    settings: GatewaySettings,
    committer: Committer,
    health: Health,
    metrics: Metrics,
    disk_free: Callable[[], int],
) -> Headroom:
    policy = HeadroomPolicy(settings.shard.disk_free_min, settings.shard.backlog_bytes_max)
    headroom = Headroom(policy, health, lambda: committer.durable, disk_free)
    metrics.watch("tollgate_disk_free_bytes", "On the store's volume", lambda: headroom.measure().disk_free)
    metrics.watch(
        "tollgate_backlog_bytes",
        "Changes that wait to be shipped to Kafka",
        lambda: headroom.measure().backlog_bytes,
    )
    metrics.watch(
        "tollgate_refusing_payments",
        "1 while new payments are refused for want of room",
        lambda: float(health.refusal is not None),
    )
    return headroom


def build_committer(
    settings: GatewaySettings,
    store: Store,
    opened: Opened,
    flusher: Flusher,
    watermark: WatermarkWriter,
    clock: Clock,
    metrics: Metrics,
    on_failure: Callable[[StoreFailed], None],
) -> Committer:
    ring: Ring[Waiting] = Ring(settings.commit.ring_slots, settings.commit.ring_bytes_max)
    metrics.watch("tollgate_ring_depth", "Entries that wait for a commit", lambda: len(ring))
    return Committer(
        store=store,
        identity=opened.identity,
        log=opened.log,
        ring=ring,
        flusher=flusher,
        watermark=watermark,
        clock=clock,
        metrics=metrics,
        batch_count_max=settings.commit.batch_count_max,
        on_failure=on_failure,
    )


def build_replication(
    settings: GatewaySettings, committer: Committer, clock: Clock, metrics: Metrics
) -> Replication | None:
    """None with ack=durable."""
    commit = settings.commit
    if commit.ack == "durable":
        return None
    policy = ReplicationPolicy(commit.ack_wait_s, commit.ack_waiting_max, commit.ring_bytes_max)
    replication = Replication(committer, clock, metrics, policy)
    metrics.watch("tollgate_replication_waiting", "Requests that wait for Kafka", lambda: replication.waiting)
    metrics.watch(
        "tollgate_replication_silent",
        "1 while Kafka owes a confirmation for too long and new payments are refused",
        lambda: float(replication.silent),
    )
    return replication


def build_elsewhere(
    settings: GatewaySettings,
    ring: RingNow,
    ledger: Ledger,
    other_shards: OtherShards,
    committer: Committer,
    clock: Clock,
    metrics: Metrics,
) -> Elsewhere:
    limits = settings.look_ups
    elsewhere = Elsewhere(
        ring=ring,
        ledger=ledger,
        shards=other_shards,
        keep=Keeper(committer, clock, settings.retention.payments_s * 1_000_000).keep,
        clock=clock,
        metrics=metrics,
        policy=LookUpPolicy(
            limits.timeout_s, limits.in_flight_max, limits.refresh_after_s, limits.shipped_within_s
        ),
    )
    metrics.watch(
        "tollgate_ring_version", "Of the ring file, as this shard goes by it", lambda: ring.owners.version
    )
    metrics.watch("tollgate_look_ups_in_flight", "Look-ups that are under way", lambda: elsewhere.in_flight)
    return elsewhere


def build_http(
    settings: GatewaySettings,
    committer: Committer,
    replication: Replication | None,
    elsewhere: Elsewhere,
    ledger: AskedLedger,
    vault: AskedVault,
    merchants: Merchants,
    health: Health,
    metrics: Metrics,
    clock: Clock,
) -> HttpApp:
    policy = PaymentPolicy(
        psp_names=settings.psp.names,
        expires_after_us=settings.expires_after_s * 1_000_000,
        client_secrets=ClientSecrets(settings.client_secret_key.get_secret_value().encode()),
    )
    limits = build_key_limits(settings, clock, metrics)
    payments = PaymentHandlers(
        committer=committer,
        elsewhere=elsewhere,
        merchants=merchants,
        health=health,
        clock=clock,
        policy=policy,
        replication=replication,
        limits=limits,
    )
    calls = LedgerCalls(ledger, metrics, settings.ledger.in_flight_max)
    metrics.watch("tollgate_ledger_calls_in_flight", "Under way for clients", lambda: calls.in_flight)
    access = Access(payments.authenticate, health, limits)
    operations = OperationHandlers(payments, calls, elsewhere, access)
    webhooks = WebhookHandlers(committer, health, clock, webhook_endpoints(settings))
    kept = VaultHandlers(calls, vault, access, lambda: f"shard-{secrets.token_hex(16)}")
    hand_over = committer.hand_over if replication is None else replication.hand_over
    loop = asyncio.get_running_loop()
    return HttpApp(
        payments.collection_route(operations.list_them),
        payments.payment_route(operations.change),
        ColdApp(
            [
                webhooks.route(),
                *operations.routes(),
                *kept.routes(),
                *document_routes(settings.psp.names),
            ]
        ),
        hand_over,
        metrics,
        Gate(
            committer.ring,
            clock,
            loop.call_soon,
            turn_ms_max=settings.overload.turn_ms_max,
            look_every=settings.overload.look_every,
        ),
        ops_routes(health, metrics),
    )


def webhook_endpoints(settings: GatewaySettings) -> dict[str, WebhookEndpoint]:
    """Reads the files of secrets. Raises ConfigurationError."""
    return {
        psp: WebhookEndpoint(VERIFIERS[psp](_secrets(psp, section)), section.webhook_sources)
        for psp, section in settings.psp.webhooks().items()
    }


def _secrets(psp: str, section: WebhookSettings) -> list[str]:
    given = section.webhook_secret.get_secret_value() if section.webhook_secret else ""
    if (path := section.webhook_secret_file) is not None:
        try:
            given += "\n" + path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"The webhook secrets of {psp} can't be read from {path}: {type(error).__name__}. "
                "Correct the file or the setting and start again."
            ) from None
    if not (secrets := given.split()):
        raise ConfigurationError(f"The webhook secret of {psp} is empty. Set it and start again.")
    return secrets


def build_key_limits(settings: GatewaySettings, clock: Clock, metrics: Metrics) -> KeyLimits | None:
    """None when nothing is limited: then it costs nothing."""
    limits = settings.limits
    post, get = limits.key_post_per_second, limits.key_get_per_second
    if not post and not get:
        return None
    return KeyLimits(
        RateLimit(Rate(post, limits.key_post_burst), limits.keys_max) if post else None,
        RateLimit(Rate(get, limits.key_get_burst), limits.keys_max) if get else None,
        clock,
        partial(metrics.refused, "key_rate"),
    )


def watch(metrics: Metrics, committer: Committer, health: Health) -> None:
    metrics.watch("tollgate_last_sequence", "Durable end of the change log", lambda: committer.durable.last)
    metrics.watch(
        "tollgate_acknowledged_sequence", "Shipped to Kafka", lambda: committer.durable.acknowledged
    )
    metrics.watch(
        "tollgate_unacknowledged_changes",
        "Durable here and not yet shipped",
        lambda: committer.durable.last - committer.durable.acknowledged,
    )
    metrics.watch("tollgate_ready", "1 when /readyz says so", lambda: float(health.reason() is None))


def _merchants(settings: GatewaySettings, store: Store) -> Merchants:
    development = settings.development
    known = (development.api_key.get_secret_value(), development.merchant) if development else None
    merchants = Merchants(settings.psp.default, known)
    copy = store.get(META, META_MERCHANTS)
    if copy is not None:
        merchants.load(copy)
    return merchants
