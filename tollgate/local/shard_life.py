"""The hands of the ring changer in the running stack: shards are started, drained and ended, rings served.

A shard says by its metrics which ring it goes by and how far it is shipped; the processors say by their
commits what is in Postgres.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog

from tollgate.errors import ConfigurationError, OperationalError, RejectedInput
from tollgate.local import nginx
from tollgate.local.part import Part
from tollgate.local.ports import address, check_free
from tollgate.local.probes import fetch
from tollgate.local.ring_changer import Say
from tollgate.local.run_state import PartStatus
from tollgate.local.stack import StackSettings, next_address, shard_parts, shard_ports
from tollgate.local.supervisor import Supervisor
from tollgate.ring_file import RingFile, ShardEntry
from tollgate.shard_layout import WATERMARK_FILE
from tollgate.topics import status_group_prefix
from tollgate.watermark import read_watermark

_READY_S: Final = 60.0
_KNOWN_S: Final = 10.0  # a shard that hangs or is away reads the file before it does anything else
_RELOAD_S: Final = 20.0
_POLL_S: Final = 0.05
_DRAIN_POLL_S: Final = 0.2
_SAY_EVERY_S: Final = 5.0

_log = structlog.get_logger()


class ShardLife:
    def __init__(self, settings: StackSettings, supervisor: Supervisor, api_key: str) -> None:
        self._settings = settings
        self._supervisor = supervisor
        self._api_key = api_key

    def next_address(self, ring: RingFile) -> tuple[str, str]:
        return next_address(self._settings, ring)

    async def start(self, shard: ShardEntry) -> None:
        parts = self._parts(shard)
        if not self._supervisor.has(parts[0].name):
            try:
                await asyncio.to_thread(check_free, shard_ports(self._settings.ports, shard))
            except ConfigurationError as error:
                raise OperationalError(error.message) from error
            for part in parts:
                self._supervisor.add(part)

        async def are_ready() -> bool:
            return all(self._supervisor.status(part.name) is PartStatus.READY for part in parts)

        if not await _until(are_ready, _READY_S):
            raise OperationalError(
                f"Shard {shard.id} was not ready within {_READY_S:g} s and is given up; the ring is as "
                f"it was. Read {parts[0].log} and {parts[1].log}."
            )

    async def end(self, shard: ShardEntry) -> None:
        for part in self._parts(shard):
            await self._supervisor.remove(part.name)
        await self._forget_group(shard)

    async def serve(self, ring: RingFile) -> None:
        """First every shard knows, so that whoever gets a moved key knows whom to ask about it."""

        async def all_know() -> bool:
            return all([await self._knows(shard, ring.version) for shard in ring.running])

        if not await _until(all_know, _KNOWN_S):
            _log.warning("a shard does not say that it knows the ring", version=ring.version)
        master = self._supervisor.pid(nginx.NGINX)
        before, _ = nginx.workers(master) if master is not None else (set(), set())
        await self._supervisor.reload(nginx.NGINX)
        listen = address(self._settings.ports.http)

        async def is_served() -> bool:
            accepting, _ = nginx.workers(master) if master is not None else (set(), set())
            return not before & accepting and await nginx.served_ring(listen) == ring.version

        if not await _until(is_served, _RELOAD_S):
            raise OperationalError(
                f"nginx does not serve ring {ring.version} after {_RELOAD_S:g} s. It is tried again. "
                f"Read {self._settings.paths.log(nginx.NGINX)}."
            )

    def check_drainable(self, shard: int) -> None:
        if self._settings.processors == 0:
            raise RejectedInput(
                f"Shard {shard} can't be removed while no processor runs: nobody would answer for its "
                "payments. Nothing was changed. Start the stack with --processors 1."
            )

    async def drain(self, shard: ShardEntry, say: Say) -> None:
        tell = _Sparing(say)
        await self._old_workers_gone(shard, tell)
        await self._all_shipped(shard, tell)
        await self._all_taken_in(shard, tell)

    def _parts(self, shard: ShardEntry) -> list[Part]:
        return shard_parts(self._settings, shard, self._api_key)

    async def _old_workers_gone(self, shard: ShardEntry, tell: Say) -> None:
        """They may still send to the shard. nginx ends them itself in the end (worker_shutdown_timeout)."""
        while (master := self._supervisor.pid(nginx.NGINX)) is not None and nginx.workers(master)[1]:
            tell(f"shard {shard.id} is off the ring; connections from before end")
            await asyncio.sleep(_DRAIN_POLL_S)

    async def _all_shipped(self, shard: ShardEntry, tell: Say) -> None:
        """Until the shard says that Kafka has all it took; one that is away comes back."""
        while (left := (await _metrics(shard)).get("tollgate_unacknowledged_changes")) != 0:
            changes = "an unknown number of" if left is None else f"{left:.0f}"
            tell(f"shard {shard.id} drains: {changes} changes to be shipped to Kafka")
            await asyncio.sleep(_DRAIN_POLL_S)

    async def _all_taken_in(self, shard: ShardEntry, tell: Say) -> None:
        # Here, because it loads the Kafka client: slow.
        from tollgate.local.intake_progress import ends_of_changes, not_taken_in

        bootstrap = self._settings.bootstrap
        ends: Mapping[int, int] = {}
        while True:
            try:
                ends = ends or await asyncio.to_thread(ends_of_changes, bootstrap)
                left = await asyncio.to_thread(not_taken_in, bootstrap, ends)
            except OperationalError as error:
                tell(f"shard {shard.id} drains: {error.message}")
            else:
                if left == 0:
                    return
                tell(f"shard {shard.id} drains: {left} changes to be taken into Postgres")
            await asyncio.sleep(_DRAIN_POLL_S)

    async def _forget_group(self, shard: ShardEntry) -> None:
        from tollgate.local.intake_progress import forget_status_group

        watermark = read_watermark(self._settings.paths.shard(shard.id) / WATERMARK_FILE)
        if watermark is None:
            return
        group = status_group_prefix(shard.id) + watermark.incarnation.hex()
        try:
            await asyncio.to_thread(forget_status_group, self._settings.bootstrap, group)
        except OperationalError as error:
            _log.warning("left to expire", error=error.message)

    async def _knows(self, shard: ShardEntry, version: int) -> bool:
        return (await _metrics(shard)).get("tollgate_ring_version", 0) >= version


class _Sparing:
    """Says what is new, and what stays the same every few seconds."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._again_at = 0.0

    def __call__(self, note: str) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._again_at:
            self._again_at = now + _SAY_EVERY_S
            self._say(note)


async def _metrics(shard: ShardEntry) -> dict[str, float]:
    """Those without labels; empty when the shard does not answer."""
    body = await fetch(shard.name, "/metrics")
    found = {}
    for line in (body or b"").decode().splitlines():
        name, _, value = line.partition(" ")
        if name.isidentifier():
            found[name] = float(value)
    return found


async def _until(condition: Callable[[], Awaitable[bool]], timeout_s: float) -> bool:
    """False when the time is up."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not await condition():
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(_POLL_S)
    return True
