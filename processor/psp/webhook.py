"""What a PSP's webhook says, once its reader has read it: which payment, which operation, what came of it.

A reader is pure, and never raises for what a PSP may send; its signature was verified by the gateway
(`tollgate/webhooks/`). What it reports goes the way of an answer to a call: the same decisions and table.

1. A report is about one operation. `outcome` is what an answer about it would have come to: Approved,
   Declined or ActionRequired of a payment; Done or Declined of a capture, cancel or refund.
2. Amount, currency and reference are the event's own, not what we sent: they are compared here.
3. What says nothing final about an operation (created, updated, still processing) is Irrelevant.
4. A capture, cancel or refund that nobody asked Tollgate for is reported all the same, without an operation's
   name. So is the end of an authorization, as a cancel that is Done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from processor.psp.interface import ActionRequired, Approved, Declined, Done, OperationKind


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom it is about, in what Tollgate gave the PSP with the request; one of the two is there.

    `request_key` is the idempotency key of a stored request of the operation, whichever step: it names both
    payment and operation. `payment_key` is merchant/checkout id; with it `operation_id` may be empty, and
    then the operation is found by its kind, and a refund among several by its reference or amount.
    """

    request_key: str = ""
    payment_key: str = ""
    operation_id: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    subject: Subject
    kind: OperationKind
    outcome: Approved | Done | Declined | ActionRequired


@dataclass(frozen=True, slots=True)
class Irrelevant:
    """It is kept, and changes nothing."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Not what the PSP documents: kept, and a person is told. `reason` repeats nothing of it."""

    reason: str


Reading = Report | Irrelevant | Unreadable

ReadWebhook = Callable[[bytes], Reading]
