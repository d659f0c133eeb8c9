"""What all witnesses say of one payment. Plain tuples: they are written to disk and read back on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any, Final, NamedTuple

from tollgate.client_log import ClientAnswer
from tollgate.ids import PAYMENT_OPERATION

ACCEPTED_STATUSES: Final = (200, 202)
SIMULATOR: Final = "simulator"
EXECUTING: Final = frozenset({"charge", "authorization"})  # what a payment has at most one of
CAPTURING: Final = frozenset({"charge", "capture"})


class State(NamedTuple):
    """A payment at one version. Empty strings and bytes: this witness doesn't say."""

    status: str
    version: int
    amount: int
    currency: str
    captured: int
    refunded: int
    capture: str
    payment_method: str
    fingerprint: bytes
    at_us: int  # when it became so

    @property
    def content(self) -> tuple[int, str]:
        return self.amount, self.currency

    @property
    def standing(self) -> tuple[str, int, int]:
        return self.status, self.captured, self.refunded


class Row(NamedTuple):
    """In Postgres."""

    state: State
    psp: str
    created_us: int
    failure_code: str


class Operation(NamedTuple):
    """In Postgres. The payment's own is `payment`, and is here only when it is parked."""

    id: str
    type: str
    amount: int
    status: str
    idempotency_key: str
    parked_reason: str
    created_us: int
    changed_us: int


class Accepted(NamedTuple):
    """A record of payments.changes. `is_taken`: intake's group has gone past it."""

    place: str  # partition/offset
    shard: int
    is_taken: bool
    state: State


class Stored(NamedTuple):
    """In a shard's store."""

    shard: int
    state: State


class Event(NamedTuple):
    """A record of payments.events. `told_version` is its header's, `state` its body's."""

    place: str
    type: str
    told_version: int
    state: State


class Snapshot(NamedTuple):
    """A record of payments.status, in its shard's partition. `sent_us`: when its relay set about it."""

    place: str
    shard: int
    sent_us: int
    state: State


class Effect(NamedTuple):
    """In the PSP's ledger."""

    id: str
    type: str
    idempotency_key: str
    amount: int
    currency: str
    at_us: int


class Kind(IntEnum):
    """What a spooled record is."""

    TOLD = 0
    ROW = 1
    OPERATION = 2
    ACCEPTED = 3
    STORED = 4
    EVENT = 5
    SNAPSHOT = 6
    EFFECT = 7
    SHIPPED_BY = 8  # a shard's id
    CONFLICT = 9  # the fingerprint of a losing content
    ANOMALY = 10  # its kind
    DEAD_LETTER = 11  # its error
    UNPUBLISHED = 12  # since when


@dataclass(frozen=True)
class Look:
    """When the witnesses were read, and what of them could be: what the rules go by beside the testimony."""

    began_us: int
    settle_us: int = 30_000_000  # what changed later than this before the look is under way
    open_us: int = 300_000_000  # how long a payment may be on its way
    has_ledger: bool = True
    shards: frozenset[int] = frozenset()  # whose stores were read and that are fed with statuses
    since_us: int = 0  # what is older is not judged
    store_us: int = 29 * 86_400_000_000  # how long a shard keeps what has come to rest, less a day
    events_from_us: int = 0  # retention has taken what is older
    statuses_from_us: int = 0

    def is_settled(self, at_us: int) -> bool:
        return at_us < self.began_us - self.settle_us

    def is_overdue(self, at_us: int) -> bool:
        return at_us < self.began_us - self.open_us


@dataclass
class Witnessed:
    """Of one payment. Lists are in the order in which each witness said it."""

    key: str  # merchant/checkout id
    told: list[ClientAnswer] = field(default_factory=list)
    row: Row | None = None
    operations: list[Operation] = field(default_factory=list)
    accepted: list[Accepted] = field(default_factory=list)
    stored: list[Stored] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    shipped_by: set[int] = field(default_factory=set)
    conflicts: set[bytes] = field(default_factory=set)
    anomalies: list[str] = field(default_factory=list)
    dead_letters: list[str] = field(default_factory=list)
    unpublished_us: list[int] = field(default_factory=list)

    @property
    def arrivals(self) -> list[Accepted | Stored]:
        """Where it is ahead of Postgres."""
        return [*self.accepted, *self.stored]

    @property
    def published(self) -> list[Event | Snapshot]:
        """What Postgres' decisions were told by."""
        return [*self.events, *self.snapshots]

    @cached_property
    def acceptances(self) -> list[ClientAnswer]:
        """The answers that said: accepted."""
        return [one for one in self.told if is_payment_post(one) and one.status in ACCEPTED_STATUSES]

    @cached_property
    def views(self) -> list[ClientAnswer]:
        """The answers that told how the payment stands, in the order in which they came."""
        seen = [one for one in self.told if "version" in one.answer and one.status in (200, 202, 304)]
        return sorted(seen, key=lambda one: one.at_us)

    @cached_property
    def begun_us(self) -> int:
        """Its first trace."""
        times = [self.row.created_us] if self.row is not None else []
        times += [one.state.at_us for one in self.arrivals]
        times += [one.at_us for one in self.effects] + [one.sent_us for one in self.told]
        return min(times, default=0)

    @cached_property
    def changed_us(self) -> int:
        """When anything about the payment last changed, by any witness."""
        times = [one.state.at_us for one in [*self.arrivals, *self.published]]
        times += [one.at_us for one in self.effects]
        times += [one.changed_us for one in self.operations]
        times += [one.at_us for one in self.told if one.method != "GET"]
        if self.row is not None:
            times.append(self.row.state.at_us)
        return max(times, default=0)

    @cached_property
    def is_simulated(self) -> bool:
        """Whether the ledger that was read is its PSP's."""
        return self.row is not None and self.row.psp == SIMULATOR

    def is_at_rest(self, look: Look) -> bool:
        """Nothing about it was under way when the witnesses were read, so all must say the same."""
        return (
            self.row is not None
            and look.is_settled(self.changed_us)
            and all(one.status != "pending" or one.id == PAYMENT_OPERATION for one in self.operations)
        )


def is_payment_post(answer: ClientAnswer) -> bool:
    return answer.method == "POST" and answer.path == "/v1/payments"


def add(testimony: Witnessed, kind: Kind, record: tuple[Any, ...]) -> None:
    """Takes a record back out of the form in which it was spooled (`packed`)."""
    match kind:
        case Kind.TOLD:
            testimony.told.append(ClientAnswer._make(record))
        case Kind.ROW:
            testimony.row = Row._make((State._make(record[0]), *record[1:]))
        case Kind.OPERATION:
            testimony.operations.append(Operation._make(record))
        case Kind.ACCEPTED:
            testimony.accepted.append(Accepted._make(_with_state(record)))
        case Kind.STORED:
            testimony.stored.append(Stored._make(_with_state(record)))
        case Kind.EVENT:
            testimony.events.append(Event._make(_with_state(record)))
        case Kind.SNAPSHOT:
            testimony.snapshots.append(Snapshot._make(_with_state(record)))
        case Kind.EFFECT:
            testimony.effects.append(Effect._make(record))
        case Kind.SHIPPED_BY:
            testimony.shipped_by.add(record[0])
        case Kind.CONFLICT:
            testimony.conflicts.add(record[0])
        case Kind.ANOMALY:
            testimony.anomalies.append(record[0])
        case Kind.DEAD_LETTER:
            testimony.dead_letters.append(record[0])
        case Kind.UNPUBLISHED:
            testimony.unpublished_us.append(record[0])


def _with_state(record: tuple[Any, ...]) -> tuple[Any, ...]:
    """The state is the last part of whatever has one."""
    return (*record[:-1], State._make(record[-1]))


def packed(record: tuple[Any, ...]) -> tuple[Any, ...]:
    """Plain tuples only, which is what `marshal` takes. A state is the first part of a row, else the last."""
    if type(record[-1]) is State:
        return (*record[:-1], tuple(record[-1]))
    if type(record[0]) is State:
        return (tuple(record[0]), *record[1:])
    return tuple(record)
