"""Whether there is room for one more payment: on the disk, and in what is not shipped to Kafka yet.

Promises that normal growth never meets ENOSPC, which would end the shard: below `disk_free_min` new payments
are refused while reads, replays, statuses and acknowledgements go on, and what is free then is what the
write-ahead log, the memtables and a compaction need to finish. A refusal ends by itself, a little beyond the
bound that began it, so that it doesn't flicker. Nothing survives a crash: it is measured anew.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, NamedTuple

import structlog

from gateway.change_log import MARK_BYTES, LogState
from gateway.health import Health

INTERVAL_S: Final = 0.5  # at 100 MB/s of WAL, flushes and compaction: 50 MB between two looks
# A refusal ends when there is a tenth more space, or a tenth less backlog, than where it began.
_SLACK: Final = 10
_MIB: Final = 1024 * 1024

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class HeadroomPolicy:
    disk_free_min: int
    backlog_bytes_max: int


class Room(NamedTuple):
    """What was measured."""

    disk_free: int
    backlog_bytes: int


class Shortage(NamedTuple):
    """What there is too little room in."""

    disk: bool = False
    backlog: bool = False


def backlog_bytes(log: LogState) -> int:
    """What is durable here and not yet shipped, to within a piece of the log; nothing is read for it."""
    if log.last == log.acknowledged:
        return 0
    first_unshipped = bisect_right(log.marks, log.acknowledged, key=attrgetter("sequence"))
    if first_unshipped == len(log.marks):
        return min(log.bytes_total, MARK_BYTES)
    return log.bytes_total - log.marks[first_unshipped].bytes_total + MARK_BYTES


def judge_room(policy: HeadroomPolicy, room: Room, before: Shortage) -> Shortage:
    disk_min, backlog_max = policy.disk_free_min, policy.backlog_bytes_max
    if before.disk:
        disk_min += disk_min // _SLACK
    if before.backlog:
        backlog_max -= backlog_max // _SLACK
    return Shortage(room.disk_free < disk_min, room.backlog_bytes > backlog_max)


def refusal(policy: HeadroomPolicy, room: Room, shortage: Shortage) -> str | None:
    """What a client is told: why, and what happens next."""
    reasons = []
    if shortage.disk:
        reasons.append(
            f"{room.disk_free // _MIB} MiB are free on the shard's volume and {policy.disk_free_min // _MIB} "
            "MiB are kept free"
        )
    if shortage.backlog:
        reasons.append(
            f"{room.backlog_bytes // _MIB} MiB wait to be shipped to Kafka and at most "
            f"{policy.backlog_bytes_max // _MIB} MiB may"
        )
    if not reasons:
        return None
    return (
        f"New payments are refused: {'; '.join(reasons)}. Nothing was accepted; reads and replays go on. "
        "It ends by itself when there is room again: retry with the same id."
    )


class Headroom:
    """Looks when it is told, and sets the health's refusal. `disk_free` may raise OSError."""

    def __init__(
        self,
        policy: HeadroomPolicy,
        health: Health,
        durable: Callable[[], LogState],
        disk_free: Callable[[], int],
    ) -> None:
        self._policy = policy
        self._health = health
        self._durable = durable
        self._disk_free = disk_free
        self._shortage = Shortage()

    def measure(self) -> Room:
        try:
            disk_free = self._disk_free()
        except OSError:  # a volume that can't even say that has no room
            disk_free = 0
        return Room(disk_free, backlog_bytes(self._durable()))

    async def look(self) -> None:
        """Answers from memory, the file system's included: it does not wait."""
        room = self.measure()
        shortage = judge_room(self._policy, room, self._shortage)
        self._health.refusal = refusal(self._policy, room, shortage)
        if shortage != self._shortage:
            said = {"disk_free": room.disk_free, "backlog_bytes": room.backlog_bytes}
            if self._health.refusal is None:
                log.info("there is room again; new payments are taken", **said)
            else:
                log.error("too little room", reason=self._health.refusal, **said)
        self._shortage = shortage
