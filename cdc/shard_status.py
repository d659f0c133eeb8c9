"""How far a shard's changes have come, from its store and from its cdc process: either may be down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from cdc.shard_log import LogState, ShardLog
from cdc.tailer_probe import TailerFacts
from tollgate.clock import Clock
from tollgate.v1.change_pb2 import Change

State = Literal["caught up", "shipping", "waiting", "halted", "down", "retired"]

NEEDS_A_PERSON: Final[frozenset[State]] = frozenset({"halted", "down"})


@dataclass(frozen=True)
class Lag:
    """Durable changes that the shard doesn't know as delivered. `seconds` is the age of the oldest."""

    records: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class ShardStatus:
    state: State
    log: LogState
    lag: Lag
    tailer: TailerFacts | None
    reason: str  # why it waits or has halted; else empty


def look_at(
    log: ShardLog, tailer: TailerFacts | None, clock: Clock, *, is_retired: bool = False
) -> ShardStatus:
    """`is_retired`: taken off the ring for good. Raises OperationalError when the store can't be read."""
    state = log.look()
    lag = _lag(log, state, clock)
    return ShardStatus(
        state_of(tailer, lag, is_retired=is_retired), state, lag, tailer, (tailer and tailer.not_ready) or ""
    )


def state_of(tailer: TailerFacts | None, lag: Lag, *, is_retired: bool) -> State:
    if tailer is None:
        return "retired" if is_retired and not lag.records else "down"
    if tailer.is_halted:
        return "halted"
    if tailer.not_ready is not None:
        return "waiting"
    return "shipping" if lag.records else "caught up"


def _lag(log: ShardLog, state: LogState, clock: Clock) -> Lag:
    up_to = min(state.durable, state.last)
    oldest = log.value(state.acknowledged + 1) if up_to > state.acknowledged else None
    age_us = 0 if oldest is None else clock.now_us() - Change.FromString(oldest).committed_at_us
    return Lag(
        records=state.durable - state.acknowledged,
        bytes=log.bytes_between(state.acknowledged, up_to),
        seconds=max(0, age_us) / 1e6,
    )
