"""The life of a shard process: start, serve, watch itself, stop within a bound.

Stopping, in this order: unready; no new connections, requests under way end; gRPC ends; the last commit
lands; the store closes. Everything that was answered is durable before any of it, so a stop that is cut short
loses nothing.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import structlog

from gateway import headroom, ring_watch
from gateway.bootstrap import Shard, build
from gateway.errors import NotReady
from gateway.http.connection_bounds import (
    ConnectionBounds,
    connections_possible,
    files_possible,
    files_wanted,
)
from gateway.http.server import http_server
from gateway.merchants import normalized
from gateway.planner import MerchantsCopy
from gateway.replication import Replication
from gateway.rpc.server import start_rpc
from gateway.rpc.shard_service import ShardService
from gateway.settings import GatewaySettings
from gateway.watchdog import Watchdog
from tollgate.collecting import collect_seldom
from tollgate.errors import OperationalError, Overloaded, TollgateError

EXIT_OK: Final = 0
EXIT_STORE_FAILED: Final = 70

_START_TIMEOUT_S: Final = 10.0
# Together below 8 s, which is what the local supervisor waits; the contract says 10 s.
_HTTP_STOP_S: Final = 4.0
_GRPC_STOP_S: Final = 1.0
_COMMIT_STOP_S: Final = 2.0

_EXPIRE_S: Final = 0.1
# One durable write each. What a crash makes the tailer ship again grows by what is confirmed in this time.
_KEEP_S: Final = 0.05

log = structlog.get_logger()


async def serve(settings: GatewaySettings) -> int:
    """Runs until SIGTERM, SIGINT or a fatal failure; returns the exit code. Raises TollgateError at start."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[int] = loop.create_future()

    def end(code: int) -> None:
        if not stop.done():
            stop.set_result(code)

    linger_s = settings.watchdog.linger_s
    shard = build(settings, on_failure=lambda reason: _linger(loop, reason, linger_s, end))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, EXIT_OK)
    service = ShardService(shard.committer, shard.store, shard.metrics, shard.replication)
    rpc = await start_rpc(service, settings.shard.grpc)
    http = http_server(shard.http, settings.shard.http, settings.shard.server, _connection_bounds(settings))
    await shard.headroom.look()
    collect_seldom()
    await http.start(_START_TIMEOUT_S)
    watchdog = Watchdog(shard.committer, shard.health, lambda: end(EXIT_STORE_FAILED))
    tasks = [
        asyncio.create_task(watchdog.run()),
        asyncio.create_task(_every(headroom.INTERVAL_S, "headroom", shard.headroom.look)),
        asyncio.create_task(_every(settings.retention.interval_s, "retention", shard.retention.tick)),
        asyncio.create_task(_every(ring_watch.INTERVAL_S, "ring", lambda: _look_at_ring(shard))),
    ]
    if settings.ledger.targets:
        copy = _every(settings.ledger.refresh_s, "merchants", lambda: _copy_merchants(shard))
        tasks.append(asyncio.create_task(copy))
    if shard.replication is not None:
        tasks.append(asyncio.create_task(_expire(shard.replication)))
        tasks.append(asyncio.create_task(_every(_KEEP_S, "acknowledged sequence", shard.replication.keep)))
    shard.health.starting = False
    identity = shard.committer.identity
    log.info("serving", http=settings.shard.http, epoch=identity.epoch, sequence=shard.committer.durable.last)
    code = await stop
    shard.health.draining = True
    drained = await http.stop(_HTTP_STOP_S)
    await rpc.stop(_GRPC_STOP_S)
    for task in tasks:
        task.cancel()
    if shard.replication is not None:
        await _keep_last(shard.replication)
    await shard.ledger.close()
    await shard.other_shards.close()
    await _settle(shard)
    log.info("stopped", code=code, requests_cut=not drained)
    return code


def _connection_bounds(settings: GatewaySettings) -> ConnectionBounds:
    """Raises ConfigurationError when this process may not open files enough for any connection."""
    wanted = settings.overload
    files = files_possible(files_wanted(wanted.connections_max, wanted.ops_reserve))
    possible = connections_possible(wanted.connections_max, wanted.ops_reserve, files)
    if possible < wanted.connections_max:
        log.warning("fewer connections than set: the limit of open files", connections_max=possible)
    return ConnectionBounds(possible, wanted.ops_reserve, wanted.held_bytes_max)


async def _settle(shard: Shard) -> None:
    """Lets the last commit land, then closes the store; one that hangs is left to the process's end."""
    deadline = asyncio.get_running_loop().time() + _COMMIT_STOP_S
    while not shard.committer.idle and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.005)
    if shard.committer.failure is None and shard.committer.idle and shard.flusher.close(_COMMIT_STOP_S):
        shard.store.close()
    shard.watermark.close()


async def _expire(replication: Replication) -> None:
    while True:
        await asyncio.sleep(_EXPIRE_S)
        replication.expire()


async def _keep_last(replication: Replication) -> None:
    """Best effort: what is not stored is shipped again."""
    with suppress(TollgateError, TimeoutError):
        await asyncio.wait_for(replication.keep(), _COMMIT_STOP_S)


def _linger(loop: asyncio.AbstractEventLoop, reason: str, seconds: float, end: Callable[[int], None]) -> None:
    loop.call_later(seconds, end, EXIT_STORE_FAILED)
    log.critical("the store failed; unready from now on, exit follows", reason=reason, seconds=seconds)


async def _look_at_ring(shard: Shard) -> None:
    if await shard.ring.look():
        await shard.other_shards.keep_only(shard.ring.owners.addresses)


async def _copy_merchants(shard: Shard) -> None:
    copy = normalized((await shard.ledger.list_merchants()).merchants)
    if copy != shard.merchants.copy:
        await shard.committer.commit(MerchantsCopy(copy))
        shard.merchants.load(copy)
        log.info("the copy of the merchants changed")


async def _every(interval_s: float, name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Runs `work` at once and then every `interval_s`. What it needs may be away: that is said once."""
    failing = False
    while True:
        try:
            await work()
            failing = False
        except (OperationalError, Overloaded) as error:
            if not failing and not isinstance(error, NotReady):
                log.warning("will try again", task=name, reason=error.message)
            failing = True
        except Exception:  # the edge of the loop: a defect in one round must not end the rounds
            log.exception("a round failed", task=name)
        await asyncio.sleep(interval_s)
