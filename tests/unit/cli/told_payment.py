"""A payment of which all witnesses say the same, for tests that make one of them say something else.

Authorized over 10.00, captured, 3.00 refunded, and polled all along. Begun at `BEGUN_US`, at rest long before
`LOOK`.
"""

from __future__ import annotations

import hashlib
from typing import Any

from tollgate.cli.proof.contents import content_fingerprint
from tollgate.cli.proof.testimony import (
    Accepted,
    Effect,
    Event,
    Look,
    Operation,
    Row,
    Snapshot,
    State,
    Stored,
    Witnessed,
)
from tollgate.client_log import ClientAnswer
from tollgate.ids import psp_idempotency_key

MERCHANT, CHECKOUT_ID = "demo", "order-00000001"
BEGUN_US = 1_700_000_000_000_000
SECOND = 1_000_000
LOOK = Look(began_us=BEGUN_US + 600 * SECOND, shards=frozenset({0, 1}))
REQUEST = {"amount": 1000, "currency": "EUR", "payment_method": "pm_ok", "capture": "manual"}
FINGERPRINT = content_fingerprint(REQUEST)
OTHER_FINGERPRINT = hashlib.sha256(b"other").digest()
# What became of it: version, status, captured, refunded.
STEPS = (
    (1, "pending", 0, 0),
    (2, "processing", 0, 0),
    (3, "authorized", 0, 0),
    (4, "authorized", 0, 0),  # a capture is asked for
    (5, "succeeded", 1000, 0),
    (6, "succeeded", 1000, 0),  # a refund is asked for
    (7, "partially_refunded", 1000, 300),
)


def state(version: int, status: str, captured: int, refunded: int) -> State:
    at_us = BEGUN_US + version * SECOND
    return State(status, version, 1000, "EUR", captured, refunded, "manual", "pm_ok", FINGERPRINT, at_us)


def key_of(operation_id: str, step: str) -> str:
    return psp_idempotency_key(MERCHANT, CHECKOUT_ID, operation_id, step)


def answer(
    at_s: float,
    status: int,
    told: dict[str, Any],
    method: str = "GET",
    path: str = f"/v1/payments/{CHECKOUT_ID}",
    key: str = "",
    request: dict[str, Any] | None = None,
) -> ClientAnswer:
    """Asked 10 ms before it was told, `at_s` after the payment began."""
    at_us = BEGUN_US + round(at_s * SECOND)
    return ClientAnswer(
        at_us - 10_000, at_us, method, path, MERCHANT, CHECKOUT_ID, key, request, status, told, ""
    )


def view(at_s: float, version: int, status: str, captured: int = 0, refunded: int = 0) -> ClientAnswer:
    return answer(at_s, 200, shown(version, status, captured, refunded))


def shown(version: int, status: str, captured: int = 0, refunded: int = 0) -> dict[str, Any]:
    return {
        "status": status,
        "version": version,
        "amount": 1000,
        "currency": "EUR",
        "captured_amount": captured,
        "refunded_amount": refunded,
        "capture": "manual",
    }


def posted(at_s: float, status: int, told: dict[str, Any], request: dict[str, Any] = REQUEST) -> ClientAnswer:
    return answer(at_s, status, told, "POST", "/v1/payments", request=request)


def asked(at_s: float, kind: str, operation_id: str, amount: int, key: str) -> ClientAnswer:
    told = {"id": operation_id, "type": kind, "amount": amount, "status": "pending"}
    path = f"/v1/payments/{CHECKOUT_ID}/{'refunds' if kind == 'refund' else kind}"
    return answer(at_s, 202, told, "POST", path, key, {"amount": amount})


def told_payment() -> Witnessed:
    """Anew each time: the caller may change it."""
    last = STEPS[-1]
    return Witnessed(
        f"{MERCHANT}/{CHECKOUT_ID}",
        told=[
            posted(0.1, 202, shown(0, "pending")),
            posted(0.3, 200, shown(0, "pending")),
            view(3.5, 3, "authorized"),
            answer(3.6, 304, {"version": 3}),
            asked(4.1, "capture", "op_capture", 1000, "capture-1"),
            view(5.5, 5, "succeeded", 1000),
            asked(6.1, "refund", "op_refund", 300, "refund-1"),
            view(7.5, 7, "partially_refunded", 1000, 300),
        ],
        row=Row(state(*last), "simulator", BEGUN_US, ""),
        operations=[
            Operation("op_capture", "capture", 1000, "succeeded", "capture-1", "", BEGUN_US, BEGUN_US),
            Operation("op_refund", "refund", 300, "succeeded", "refund-1", "", BEGUN_US, BEGUN_US),
        ],
        accepted=[Accepted("3/17", 0, is_taken=True, state=state(0, "pending", 0, 0))],
        stored=[Stored(0, state(*last))],
        events=[
            Event(f"3/{step[0]}", f"tollgate.payment.{step[1]}", step[0], state(*step)) for step in STEPS
        ],
        snapshots=[
            Snapshot(f"0/{step[0]}", 0, BEGUN_US + step[0] * SECOND + 10_000, state(*step))
            for step in STEPS
            if step[0] != 2
        ],
        effects=[
            Effect("ch_1", "authorization", key_of("payment", "charge"), 1000, "EUR", BEGUN_US),
            Effect("cp_1", "capture", key_of("op_capture", "capture"), 1000, "EUR", BEGUN_US),
            Effect("re_1", "refund", key_of("op_refund", "refund"), 300, "EUR", BEGUN_US),
        ],
        shipped_by={0},
    )
