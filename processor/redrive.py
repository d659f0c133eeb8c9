"""Redrive: dead letters back to intake, in the order of their keys, each at most once without saying.

1. What is to go is chosen, purely: by filter, standing, cap and limit, oldest first within a partition.
2. A batch is noted in Postgres as being sent, with a replay count one higher.
3. It is produced to where it came from: the bytes, key, headers and partition it had.
4. Its delivery reports are noted. Intake notes by itself what became of each.

An interruption between 2 and 4 leaves letters of which nobody knows whether they were sent: the next redrive
names them and sends them again, which intake recognises. Those that were delivered are not sent again
before intake has had them.
"""

from __future__ import annotations

import asyncio
import enum
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Final

from processor.dead_letters import Origin, key_hash, redriven
from processor.kafka.dead_letters import Letter
from processor.kafka.producer import Publishing
from processor.storage.database import Connection
from processor.storage.dead_letters import (
    SetAside,
    Standing,
    begin_redrive,
    finish_redrive,
    mark_delivered,
    mark_sending,
)
from tollgate.errors import OperationalError, RejectedInput
from tollgate.topics import CHANGES

REPLAYS_MAX: Final = 5
_BATCH: Final = 100
_DELIVERY_S: Final = 30.0
FIELDS: Final = ("key", "error", "origin", "state")


class State(enum.StrEnum):
    """How a letter stands, in the words that a person filters by."""

    WAITING = "waiting"
    IN_DOUBT = "in doubt"  # a redrive was interrupted over it
    REDRIVEN = "redriven"  # delivered; intake has not had it yet
    TAKEN_IN = "taken in"
    ELSEWHERE = "elsewhere"  # not from intake's topic: nobody would take it in


@dataclass(frozen=True, slots=True)
class Dead:
    """The last copy of a letter, and how it stands."""

    letter: Letter
    state: State
    replays: int
    redrive: int | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """A shell pattern on one field: `key=acme/*`, `error=*currency*`, `state=waiting`."""

    field: str
    pattern: str

    def matches(self, dead: Dead) -> bool:
        value = {
            "key": dead.letter.key.decode(errors="replace"),
            "error": dead.letter.error,
            "origin": str(dead.letter.origin),
            "state": dead.state.value,
        }[self.field]
        return fnmatchcase(value, self.pattern)


@dataclass(slots=True)
class Plan:
    """`chosen` in the order in which they go. `skipped` counts the others, by reason."""

    chosen: list[Dead] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def in_doubt(self) -> list[Dead]:
        return [dead for dead in self.chosen if dead.state is State.IN_DOUBT]


def parse_filter(text: str) -> Filter:
    """Raises RejectedInput for anything but `field=pattern`."""
    name, equals, pattern = text.partition("=")
    if name not in FIELDS or not equals:
        raise RejectedInput(f"A filter is field=pattern with a field of {', '.join(FIELDS)}; got {text!r}.")
    return Filter(name, pattern)


def standing_letters(letters: Iterable[Letter], standings: Mapping[Origin, Standing]) -> list[Dead]:
    """The last copy of each without its value, oldest first within a partition."""
    last = {letter.origin: replace(letter, value=b"") for letter in letters}
    return [_dead(last[origin], standings.get(origin)) for origin in sorted(last)]


def plan_redrive(
    dead: Sequence[Dead],
    filters: Sequence[Filter],
    limit: int | None,
    *,
    again: bool = False,
    replays_max: int = REPLAYS_MAX,
) -> Plan:
    """`again` takes those too that were delivered and that intake has not had yet."""
    plan = Plan()
    held: set[bytes] = set()  # keys of which an earlier letter stays: intake would set the others aside again
    for one in dead:
        matches = all(wanted.matches(one) for wanted in filters)
        reason = _why_not(one, again=again, replays_max=replays_max)
        if reason is None and one.letter.key in held:
            reason = "behind an earlier one of their key that does not go"
        if reason is None and limit is not None and len(plan.chosen) >= limit:
            reason = "beyond the limit"
        if matches and reason is None:
            plan.chosen.append(one)
            continue
        if matches and reason:
            plan.skipped[reason] += 1
        if one.state in (State.WAITING, State.IN_DOUBT):
            held.add(one.letter.key)
    return plan


async def redrive(
    connection: Connection,
    publisher: Publishing,
    chosen: Sequence[Dead],
    requested_by: str,
    filters: str,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> int:
    """`chosen` come with their values. The audit entry's number, once all are delivered. Raises
    OperationalError, which says how many were.
    """
    number = await begin_redrive(connection, requested_by, filters, len(chosen))
    done = 0
    for first in range(0, len(chosen), _BATCH):
        batch = chosen[first : first + _BATCH]
        delivered = await _send(connection, publisher, number, batch)
        done += delivered
        progress(done, len(chosen))
        if delivered < len(batch):
            raise OperationalError(
                f"Redrive {number} stopped: Kafka has confirmed {done} of {len(chosen)}. "
                "Run it again; those that are in doubt are named then."
            )
    await finish_redrive(connection, number)
    return number


async def _send(connection: Connection, publisher: Publishing, number: int, batch: Sequence[Dead]) -> int:
    """How many of the batch were delivered."""
    letters = [one.letter for one in batch]
    replays = await mark_sending(
        connection, number, [SetAside(one.origin, key_hash(one.key), one.error) for one in letters]
    )
    outgoing = [redriven(one.key, one.value, one.headers, one.origin, replays[one.origin]) for one in letters]
    try:
        async with asyncio.timeout(_DELIVERY_S):
            reports = await publisher.publish(outgoing)
    except TimeoutError:
        return 0
    delivered = [one.origin for one, ok in zip(letters, reports, strict=True) if ok]
    if delivered:
        await mark_delivered(connection, number, delivered)
    return len(delivered)


def _dead(letter: Letter, standing: Standing | None) -> Dead:
    if letter.origin.topic != CHANGES:
        return Dead(letter, State.ELSEWHERE, 0)
    if standing is None:
        return Dead(letter, State.WAITING, letter.attempts - 1)
    if standing.taken_in_at_us is not None:
        state = State.TAKEN_IN
    elif standing.redrive is None:
        state = State.WAITING
    else:
        state = State.IN_DOUBT if standing.delivered_at_us is None else State.REDRIVEN
    return Dead(letter, state, standing.replays, standing.redrive)


def _why_not(dead: Dead, *, again: bool, replays_max: int) -> str | None:
    match dead.state:
        case State.TAKEN_IN:
            return "taken in already"
        case State.ELSEWHERE:
            return "not from intake's topic"
        case State.REDRIVEN if not again:
            return "delivered, and on its way through intake (--again sends it once more)"
    if dead.replays >= replays_max:
        return f"redriven {replays_max} times already: mend the cause, then raise --replays-max"
    return None
