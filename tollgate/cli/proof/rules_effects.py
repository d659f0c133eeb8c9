"""I2: the PSP did what was asked for, once. Its ledger is the witness that Tollgate never writes. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from tollgate.cli.proof.rule import Rule
from tollgate.cli.proof.testimony import CAPTURING, EXECUTING, Effect, Look, Operation, Row, Witnessed
from tollgate.ids import PAYMENT_OPERATION, psp_idempotency_key, split_payment_key

_STEP_OF: Final = {"payment": "charge", "capture": "capture", "cancel": "cancel", "refund": "refund"}
_STANDS: Final = frozenset({"succeeded", "partially_refunded", "refunded"})
_NOTHING_YET: Final = frozenset({"pending", "processing", "requires_action"})


def _double(testimony: Witnessed, _look: Look) -> Iterator[str]:
    kinds = Counter("execution" if one.type in EXECUTING else one.type for one in testimony.effects)
    for kind in ("execution", "capture", "cancel"):
        if kinds[kind] > 1:
            found = [
                one
                for one in testimony.effects
                if one.type == kind or (kind == "execution" and one.type in EXECUTING)
            ]
            yield f"{kinds[kind]} at the PSP: {_named(found)}"
    for key, count in Counter(one.idempotency_key for one in testimony.effects).items():
        if count > 1:
            yield f"{count} effects at the PSP under the key {key}"


def _without_payment(testimony: Witnessed, _look: Look) -> Iterator[str]:
    if testimony.row is None:
        yield f"{_named(testimony.effects)} at the PSP, and Postgres does not know the payment"


def _without_operation(testimony: Witnessed, _look: Look) -> Iterator[str]:
    known = {_key_of(testimony, operation) for operation in testimony.operations}
    known.add(psp_idempotency_key(*split_payment_key(testimony.key), PAYMENT_OPERATION, "charge"))
    for effect in testimony.effects:
        if effect.idempotency_key not in known:
            yield f"{_named([effect])} at the PSP under a key that is of none of its operations"


def _denied(testimony: Witnessed, _look: Look) -> Iterator[str]:
    """Told to have failed, and the PSP did it."""
    row, types = testimony.row, [one.type for one in testimony.effects]
    if row is None:
        return
    moved = [one for one in testimony.effects if one.type in CAPTURING]
    if row.state.status in ("failed", "canceled") and moved:
        yield f"{row.state.status} in Postgres, and the PSP has {_named(moved)}"
    if row.state.status == "canceled" and "authorization" in types and "cancel" not in types:
        yield "canceled in Postgres, and the PSP still holds the authorization"
    by_key = {one.idempotency_key: one for one in testimony.effects}
    for operation in testimony.operations:
        effect = by_key.get(_key_of(testimony, operation))
        if operation.status == "failed" and operation.id != PAYMENT_OPERATION and effect is not None:
            yield f"{operation.type} {operation.id} failed in Postgres, and the PSP has {_named([effect])}"


def _missing(testimony: Witnessed, _look: Look) -> Iterator[str]:
    row, types = testimony.row, {one.type for one in testimony.effects}
    if row is None:
        return
    if row.state.status in _STANDS and not ("charge" in types or {"authorization", "capture"} <= types):
        yield f"{row.state.status} in Postgres, and the PSP has {_named(testimony.effects)}"
    if row.state.status == "authorized" and "authorization" not in types:
        yield f"authorized in Postgres, and the PSP has {_named(testimony.effects)}"
    keys = {one.idempotency_key for one in testimony.effects}
    for operation in testimony.operations:
        if operation.status != "succeeded" or operation.type == "payment":
            continue
        voids_nothing = operation.type == "cancel" and "authorization" not in types
        if not voids_nothing and _key_of(testimony, operation) not in keys:
            yield f"{operation.type} {operation.id} succeeded in Postgres, the PSP has nothing under its key"


def _amounts_of_effects(testimony: Witnessed, _look: Look) -> Iterator[str]:
    row = testimony.row
    if row is None:
        return
    for effect in testimony.effects:
        if effect.currency != row.state.currency:
            yield f"{_named([effect])} at the PSP, {row.state.currency} in Postgres"
        if effect.type in EXECUTING and effect.amount != row.state.amount:
            yield f"{_named([effect])} at the PSP, {row.state.amount} in Postgres"
    yield from _sums_at_the_psp(testimony)


def _sums_at_the_psp(testimony: Witnessed) -> Iterator[str]:
    """Whatever is under way: no more than was accepted, no more back than was taken."""
    accepted = testimony.row.state.amount if testimony.row else 0
    captured, refunded = _captured(testimony), _refunded(testimony)
    if captured > accepted:
        yield f"{captured} captured at the PSP, {accepted} accepted"
    if refunded > captured:
        yield f"{refunded} refunded at the PSP, {captured} captured"


def _sums(testimony: Witnessed, _look: Look) -> Iterator[str]:
    row = testimony.row
    if row is None:
        return
    if _captured(testimony) != row.state.captured:
        yield f"{_captured(testimony)} captured at the PSP, {row.state.captured} in Postgres"
    if _refunded(testimony) != row.state.refunded:
        yield f"{_refunded(testimony)} refunded at the PSP, {row.state.refunded} in Postgres"
    by_key = {one.idempotency_key: one for one in testimony.effects}
    for operation in testimony.operations:
        effect = by_key.get(_key_of(testimony, operation))
        if effect is not None and effect.type in ("capture", "refund") and effect.amount != operation.amount:
            yield f"{operation.type} {operation.id} of {operation.amount}: {_named([effect])} at the PSP"


def _sums_of_operations(testimony: Witnessed, _look: Look) -> Iterator[str]:
    row = testimony.row
    if row is None:
        return
    for kind, told in (("refund", row.state.refunded), ("capture", row.state.captured)):
        done = [one for one in testimony.operations if one.type == kind and one.status == "succeeded"]
        total = sum(one.amount for one in done)
        if total != told and (done or kind == "refund"):
            yield f"{kind}s of {total} succeeded, {told} in its row"


def _captured(testimony: Witnessed) -> int:
    return sum(one.amount for one in testimony.effects if one.type in CAPTURING)


def _refunded(testimony: Witnessed) -> int:
    return sum(one.amount for one in testimony.effects if one.type == "refund")


def _key_of(testimony: Witnessed, operation: Operation) -> str:
    merchant, checkout_id = split_payment_key(testimony.key)
    return psp_idempotency_key(merchant, checkout_id, operation.id, _STEP_OF[operation.type])


def _named(effects: list[Effect]) -> str:
    return ", ".join(f"{one.type} {one.id} of {one.amount} {one.currency}" for one in effects) or "nothing"


def _has_effects(testimony: Witnessed, look: Look) -> bool:
    return look.has_ledger and bool(testimony.effects)


def _is_comparable(testimony: Witnessed, look: Look) -> bool:
    """At the PSP whose ledger was read, and nothing under way."""
    return look.has_ledger and testimony.is_simulated and testimony.is_at_rest(look)


def _has_decided(testimony: Witnessed, look: Look) -> bool:
    row: Row | None = testimony.row
    return _is_comparable(testimony, look) and row is not None and row.state.status not in _NOTHING_YET


RULES = (
    Rule("I2 double", "each effect of a payment is there once", _has_effects, _double),
    Rule("I2 unasked", "an effect is of a payment that was accepted", _has_effects, _without_payment),
    Rule(
        "I2 foreign effect",
        "an effect at the PSP is of one of the payment's operations",
        lambda testimony, look: _has_effects(testimony, look) and testimony.is_simulated,
        _without_operation,
    ),
    Rule("I2 denied", "what failed has had no effect", _has_decided, _denied),
    Rule("I2 no effect", "what succeeded has had its effect", _has_decided, _missing),
    Rule(
        "I2 amount at the PSP",
        "the PSP moved what was accepted, and no more back",
        lambda testimony, look: _has_effects(testimony, look) and testimony.is_simulated,
        _amounts_of_effects,
    ),
    Rule("I2 sums at the PSP", "the PSP's effects add up to what the payment says", _has_decided, _sums),
    Rule(
        "I5 sums of operations",
        "operations that succeeded add up to what the payment says",
        lambda testimony, look: testimony.is_at_rest(look),
        _sums_of_operations,
    ),
)
