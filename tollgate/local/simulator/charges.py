"""The book of charges: what an order comes to. Pure decisions; `apply` alone changes the book.

A charge is kept as the JSON it was last answered with: one bytes object serves the stored answer, the charge
and the look-up, so that a payment costs 1.3 kB in all. An `Execution` is what the journal keeps; a recovered
book has seen the same executions in the same order as the one that crashed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import orjson

from tollgate.clock import rfc3339
from tollgate.local.simulator.requests import AmountOrder, ChargeOrder

Charge = dict[str, Any]
NewId = Callable[[str], str]

_DECLINES = {"insufficient_funds": "The card has insufficient funds."}


@dataclass(frozen=True, slots=True)
class Effect:
    """Money that moved, or was held or let go. As /_ledger shows it, but for `at_us`."""

    id: str
    type: str  # charge | authorization | capture | cancel | refund
    checkout_id: str
    merchant: str
    idempotency_key: str
    amount: int
    currency: str
    at_us: int


@dataclass(frozen=True, slots=True)
class Execution:
    """One order carried out: the answer that is kept under its key, the charge as it is then, the effect."""

    key: str
    digest: str
    status: int
    answer: dict[str, Any]
    charge: Charge | None = None  # None: the answer is the charge
    effect: Effect | None = None
    tells: bool = False  # a webhook tells of it


def execution_from_record(record: dict[str, Any]) -> Execution:
    effect = record["effect"]
    return Execution(**{**record, "effect": Effect(**effect) if effect else None})


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it is kept: replayed byte for byte."""

    digest: str
    status: int
    body: bytes


class Book:
    """All answers by key and all charges by id and reference. Grows with the payments; nothing expires."""

    def __init__(self) -> None:
        self._answers: dict[str, Answer] = {}
        self._charges: dict[str, bytes] = {}
        self._by_reference: dict[str, tuple[str, ...]] = {}
        self.processing: dict[str, None] = {}  # charges whose outcome is still to come, oldest first

    def answer(self, key: str) -> Answer | None:
        return self._answers.get(key)

    def charge(self, charge_id: str) -> Charge | None:
        raw = self._charges.get(charge_id)
        return None if raw is None else orjson.loads(raw)

    def by_reference(self, reference: str) -> list[Charge]:
        """Oldest first: one, unless somebody charged the same reference under two keys."""
        return [orjson.loads(self._charges[charge_id]) for charge_id in self._by_reference.get(reference, ())]

    def apply(self, execution: Execution) -> Answer:
        body = _packed(execution.answer)
        answer = self._answers[execution.key] = Answer(execution.digest, execution.status, body)
        charge = execution.charge or execution.answer
        charge_id, reference = charge["id"], charge["reference"]
        if charge_id not in self._charges:
            self._by_reference[reference] = (*self._by_reference.get(reference, ()), charge_id)
        self._charges[charge_id] = _packed(execution.charge) if execution.charge else body
        if charge["status"] == "processing":
            self.processing[charge_id] = None
        else:
            self.processing.pop(charge_id, None)
        return answer


def decide_charge(
    order: ChargeOrder,
    decline_code: str | None,
    key: str,
    digest: str,
    at_us: int,
    new_id: NewId,
    *,
    action_at: str | None = None,
    is_later: bool = False,
) -> Execution:
    """A charge, an authorization when capture is manual, or a decline. With `action_at`, the address below
    which payers' pages are, it waits for its payer and has no effect yet; nor has what is done later.
    """
    captures = order.capture == "automatic"
    charge: Charge = {
        "id": new_id("ch"),
        "status": "succeeded" if captures else "authorized",
        "amount": order.amount,
        "currency": order.currency,
        "captured_amount": order.amount if captures else 0,
        "refunded_amount": 0,
        "capture": order.capture,
        "checkout_id": order.checkout_id,
        "merchant": order.merchant,
        "reference": order.reference,
        "created_at": rfc3339(at_us),
    }
    if decline_code is not None:
        error = {"code": decline_code, "message": _DECLINES[decline_code]}
        return Execution(
            key, digest, 402, charge | {"status": "declined", "captured_amount": 0, "error": error}
        )
    if action_at is not None:
        page = {"url": f"{action_at}{charge['id']}", "idempotency_key": key}
        return Execution(
            key, digest, 200, charge | {"status": "requires_action", "captured_amount": 0} | page
        )
    if is_later:
        waiting = {"status": "processing", "captured_amount": 0, "idempotency_key": key}
        return Execution(key, digest, 202, charge | waiting)
    effect = _effect(
        charge, charge["id"], "charge" if captures else "authorization", order.amount, key, at_us
    )
    return Execution(key, digest, 200, charge, effect=effect)


def decide_visit(charge: Charge, approves: bool, at_us: int) -> Execution | None:
    """The payer came to the page, once: None when the charge doesn't wait for anybody (any more)."""
    if charge["status"] != "requires_action":
        return None
    if not approves:
        error = {"code": "authentication_failed", "message": "The payer did not confirm the payment."}
        declined = _without_waiting(charge) | {"status": "declined", "error": error}
        return Execution(f"visit:{charge['id']}", "", 200, declined, tells=True)
    return _approved_now(charge, f"visit:{charge['id']}", at_us)


def decide_late(charge: Charge, at_us: int) -> Execution | None:
    """What was answered `processing` comes to its outcome, once."""
    return _approved_now(charge, f"late:{charge['id']}", at_us) if charge["status"] == "processing" else None


def _without_waiting(charge: Charge) -> Charge:
    return {name: value for name, value in charge.items() if name not in ("url", "idempotency_key")}


def _approved_now(charge: Charge, name: str, at_us: int) -> Execution:
    """Under the key of the call that began it."""
    after, key = _without_waiting(charge), charge["idempotency_key"]
    captures = charge["capture"] == "automatic"
    after |= {
        "status": "succeeded" if captures else "authorized",
        "captured_amount": charge["amount"] if captures else 0,
    }
    kind = "charge" if captures else "authorization"
    effect = _effect(after, after["id"], kind, after["amount"], key, at_us)
    return Execution(name, "", 200, after, effect=effect, tells=True)


def decide_capture(
    charge: Charge, order: AmountOrder, key: str, digest: str, at_us: int, new_id: NewId
) -> Execution:
    """Once, at most what was authorized; the rest is released."""
    amount = order.amount if order.amount is not None else charge["amount"]
    if charge["status"] != "authorized":
        return _refused(
            charge, key, digest, 409, "invalid_transition", "Only an authorized charge is captured."
        )
    if amount > charge["amount"]:
        return _refused(charge, key, digest, 422, "amount_too_large", "More than was authorized.")
    after = charge | {"status": "succeeded", "captured_amount": amount}
    return _done(after, "capture", new_id("cp"), amount, key, digest, at_us)


def decide_cancel(charge: Charge, key: str, digest: str, at_us: int, new_id: NewId) -> Execution:
    """Voids an authorization, or ends what waits for its payer, which moves nothing; never refunds."""
    if charge["status"] == "requires_action":
        after = charge | {"status": "canceled"}
        ended = _done(after, "cancel", new_id("cn"), charge["amount"], key, digest, at_us)
        return replace(ended, effect=None)
    if charge["status"] != "authorized":
        return _refused(
            charge, key, digest, 409, "invalid_transition", "Only an authorized charge is canceled."
        )
    return _done(
        charge | {"status": "canceled"}, "cancel", new_id("cn"), charge["amount"], key, digest, at_us
    )


def decide_refund(
    charge: Charge, order: AmountOrder, key: str, digest: str, at_us: int, new_id: NewId
) -> Execution:
    """Any number of times, together at most what was captured."""
    left = charge["captured_amount"] - charge["refunded_amount"]
    amount = order.amount if order.amount is not None else left
    if charge["status"] != "succeeded":
        return _refused(charge, key, digest, 409, "invalid_transition", "Only a captured charge is refunded.")
    if amount > left or left == 0:
        return _refused(charge, key, digest, 422, "amount_too_large", "More than is left of the charge.")
    after = charge | {"refunded_amount": charge["refunded_amount"] + amount}
    return _done(after, "refund", new_id("re"), amount, key, digest, at_us)


def _packed(document: dict[str, Any]) -> bytes:
    # A copy: what orjson returns keeps its 4 kB working buffer for as long as it lives.
    return bytes(memoryview(orjson.dumps(document)))


def _done(
    after: Charge, kind: str, effect_id: str, amount: int, key: str, digest: str, at_us: int
) -> Execution:
    answer = {
        "id": effect_id,
        "type": kind,
        "status": "succeeded",
        "charge": after["id"],
        "amount": amount,
        "currency": after["currency"],
        "created_at": rfc3339(at_us),
    }
    effect = _effect(after, effect_id, kind, amount, key, at_us)
    return Execution(key, digest, 200, answer, charge=after, effect=effect)


def _refused(charge: Charge, key: str, digest: str, status: int, code: str, message: str) -> Execution:
    error = {"error": {"code": code, "message": f"{message} Charge {charge['id']} is {charge['status']}."}}
    return Execution(key, digest, status, error, charge=charge)


def _effect(charge: Charge, effect_id: str, kind: str, amount: int, key: str, at_us: int) -> Effect:
    return Effect(
        effect_id, kind, charge["checkout_id"], charge["merchant"], key, amount, charge["currency"], at_us
    )
