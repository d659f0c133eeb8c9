"""What waits too long, or for a person: nothing is lost by it, and nobody may overlook it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tollgate.cli.proof.rule import Rule
from tollgate.cli.proof.testimony import Look, Witnessed
from tollgate.clock import rfc3339
from tollgate.ids import PAYMENT_OPERATION

_PAYER_US: Final = 3600 * 1_000_000  # how long a payment waits for its payer


def _open(testimony: Witnessed, look: Look) -> Iterator[str]:
    row = testimony.row
    if row is None:
        return
    since_us = row.state.at_us
    if row.state.status in ("pending", "processing") and look.is_overdue(since_us):
        yield f"{row.state.status} since {rfc3339(since_us)}"
    if row.state.status == "requires_action" and look.is_overdue(since_us + _PAYER_US):
        yield f"requires_action since {rfc3339(since_us)}"
    for one in testimony.operations:
        is_own = one.id == PAYMENT_OPERATION
        if (
            one.status == "pending"
            and not is_own
            and not one.parked_reason
            and look.is_overdue(one.created_us)
        ):
            yield f"{one.type} {one.id} pending since {rfc3339(one.created_us)}"


def _parked(testimony: Witnessed, _look: Look) -> Iterator[str]:
    for one in testimony.operations:
        if one.parked_reason:
            yield f"{one.type} {one.id}: {one.parked_reason}; look at `tollgate payments parked`"


def _anomalous(testimony: Witnessed, _look: Look) -> Iterator[str]:
    yield from (f"{kind}; its evidence is in the table anomalies" for kind in testimony.anomalies)


def _set_aside(testimony: Witnessed, _look: Look) -> Iterator[str]:
    yield from (f"{error}; look at `tollgate dlq list`" for error in testimony.dead_letters)


def _untold(testimony: Witnessed, look: Look) -> Iterator[str]:
    for since_us in testimony.unpublished_us:
        if look.is_overdue(since_us):
            yield f"a version of {rfc3339(since_us)} is still to be published"


RULES = (
    Rule(
        "I7 open too long",
        "a payment comes to rest",
        lambda testimony, _look: testimony.row is not None,
        _open,
    ),
    Rule(
        "I7 untold",
        "what is decided is soon told",
        lambda testimony, _look: testimony.row is not None,
        _untold,
    ),
    Rule(
        "I2 parked",
        "nothing waits for a person's word",
        lambda testimony, _look: bool(testimony.operations),
        _parked,
    ),
    Rule(
        "I2 anomaly",
        "no PSP contradicts what is known",
        lambda testimony, _look: testimony.row is not None,
        _anomalous,
    ),
    Rule(
        "I1 set aside",
        "no change waits among the dead letters",
        lambda testimony, _look: bool(testimony.accepted or testimony.dead_letters),
        _set_aside,
    ),
)
