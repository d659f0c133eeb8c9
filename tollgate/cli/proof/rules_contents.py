"""What was accepted is what is executed and told: the same content by every witness, within its amounts.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from tollgate.cli.proof.contents import content_fingerprint
from tollgate.cli.proof.rule import Rule
from tollgate.cli.proof.testimony import Look, State, Witnessed
from tollgate.clock import rfc3339


def _states(testimony: Witnessed) -> Iterator[tuple[str, State]]:
    """Every account of the payment but Postgres' own, and whose it is."""
    yield from ((f"payments.changes {one.place}", one.state) for one in testimony.accepted)
    yield from ((f"shard {one.shard}", one.state) for one in testimony.stored)
    yield from ((f"payments.events {one.place}", one.state) for one in testimony.events)
    yield from ((f"payments.status {one.place}", one.state) for one in testimony.snapshots)


def _different(testimony: Witnessed, look: Look) -> Iterator[str]:
    """A content that lost against another under the same id is known as such, and no contradiction."""
    row = testimony.row
    if row is None:
        return
    for where, state in _states(testimony):
        if state.fingerprint in testimony.conflicts:
            continue
        for what in ("amount", "currency", "capture", "payment_method", "fingerprint"):
            theirs, ours = getattr(state, what), getattr(row.state, what)
            if theirs and theirs != ours:
                yield f"{what} is {_shown(theirs)} in {where}, {_shown(ours)} in Postgres"
    yield from _different_for_clients(testimony)


def _different_for_clients(testimony: Witnessed) -> Iterator[str]:
    row = testimony.row
    if row is None:
        return
    lost = False
    for one in testimony.acceptances:
        asked = content_fingerprint(one.request) if one.request else row.state.fingerprint
        if asked in testimony.conflicts:
            lost = True
        elif asked != row.state.fingerprint:
            yield f"the content accepted at {rfc3339(one.at_us)} is another than Postgres has"
    if lost:
        return  # who was told of the losing content was told its amount
    for view in testimony.views:
        for what in ("amount", "currency", "capture"):
            told, ours = view.answer.get(what), getattr(row.state, what)
            if told is not None and told != ours:
                yield f"{what} {told} was told at {rfc3339(view.at_us)}, {ours} in Postgres"


def _shown(value: object) -> str:
    return value.hex()[:12] if isinstance(value, bytes) else str(value)


def _amounts(testimony: Witnessed, _look: Look) -> Iterator[str]:
    accounts = list(_states(testimony))
    if testimony.row is not None:
        accounts.append(("Postgres", testimony.row.state))
    for where, state in accounts:
        yield from _beyond(where, state.amount, state.captured, state.refunded)
    for view in testimony.views:
        told = [view.answer.get(name, 0) for name in ("amount", "captured_amount", "refunded_amount")]
        if view.status != 304:
            yield from _beyond(f"what was told at {rfc3339(view.at_us)}", *told)


def _beyond(where: str, amount: int, captured: int, refunded: int) -> Iterator[str]:
    if not 0 <= captured <= amount:
        yield f"{captured} captured of {amount} in {where}"
    if not 0 <= refunded <= captured:
        yield f"{refunded} refunded of {captured} captured in {where}"


RULES = (
    Rule(
        "I5 different",
        "amount, currency, method and content are the same for every witness",
        lambda testimony, _look: testimony.row is not None,
        _different,
    ),
    Rule(
        "I5 amounts",
        "no more is captured than accepted, no more refunded than captured",
        lambda testimony, _look: True,
        _amounts,
    ),
)
