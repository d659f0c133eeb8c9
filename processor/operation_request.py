"""Whether a capture, a cancel, a refund or a change of a payment may be: decided once, under its lock. Pure.

Open operations count as if they had succeeded, so what is accepted can never add up to more than there is.
What is accepted is a new version of the payment, which shows the operation; what is refused leaves no trace.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from processor.operation_outcome import CANCELED_FAILURE
from processor.outcome import next_version
from processor.psp.interface import OperationKind
from tollgate.status import (
    AUTHORIZED,
    CANCELED,
    NAME,
    PARTIALLY_REFUNDED,
    PENDING,
    PROCESSING,
    REQUIRES_ACTION,
    SUCCEEDED,
    StatusValue,
)
from tollgate.v1.payment_pb2 import MetadataEntry, Operation, OperationStatus, OperationType, Payment

OPERATIONS_SHOWN: Final = 10
# Where each may be asked for. After it the answer is invalid_transition, whatever the amount.
ASKED_FOR_IN: Final[dict[OperationKind, frozenset[StatusValue]]] = {
    OperationKind.CAPTURE: frozenset({AUTHORIZED}),
    OperationKind.CANCEL: frozenset({PENDING, PROCESSING, REQUIRES_ACTION, AUTHORIZED}),
    OperationKind.REFUND: frozenset({SUCCEEDED, PARTIALLY_REFUNDED}),
}
OPERATION_TYPE: Final[dict[OperationKind, OperationType.ValueType]] = {
    OperationKind.CAPTURE: OperationType.OPERATION_TYPE_CAPTURE,
    OperationKind.CANCEL: OperationType.OPERATION_TYPE_CANCEL,
    OperationKind.REFUND: OperationType.OPERATION_TYPE_REFUND,
}
_ENDS_AN_AUTHORIZATION: Final = frozenset({OperationKind.CAPTURE, OperationKind.CANCEL})


class RefusalCode(enum.StrEnum):
    """The problem codes of the HTTP interface."""

    NOT_YET_PROCESSED = "not_yet_processed"
    INVALID_TRANSITION = "invalid_transition"
    AMOUNT_TOO_LARGE = "amount_too_large"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    VERSION_MISMATCH = "version_mismatch"
    UNKNOWN_CUSTOMER = "unknown_customer"


@dataclass(frozen=True, slots=True)
class Wanted:
    """As the client asked for it. `amount` None: all there is."""

    kind: OperationKind
    amount: int | None
    reason: str
    idempotency_key: str

    def fingerprint(self) -> bytes:
        """Tells the same request from another one under the same key. NUL can be in no part."""
        amount = "" if self.amount is None else str(self.amount)
        return hashlib.sha256("\0".join((self.kind, amount, self.reason)).encode()).digest()


@dataclass(frozen=True, slots=True)
class Standing:
    """An operation of the payment that has not failed: it is done, or may yet be."""

    kind: OperationKind
    amount: int
    is_open: bool


@dataclass(frozen=True, slots=True)
class Accepted:
    """`payment` shows the operation. `is_settled`: nothing is left to do, it has succeeded already."""

    payment: Payment
    operation: Operation
    event: str | None
    is_settled: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """The same request came before: the operation as it is now."""

    operation: Operation


@dataclass(frozen=True, slots=True)
class Refused:
    code: RefusalCode
    message: str


def decide_requested(
    payment: Payment, standing: Sequence[Standing], wanted: Wanted, operation_id: str, now_us: int
) -> Accepted | Refused:
    """`standing` are all of the payment that have not failed, but for its own execution."""
    if payment.status not in ASKED_FOR_IN[wanted.kind]:
        return _wrong_status(payment, wanted)
    if wanted.kind in _ENDS_AN_AUTHORIZATION:
        return _end_authorization(payment, standing, wanted, operation_id, now_us)
    taken = sum(item.amount for item in standing if item.kind is OperationKind.REFUND)
    remaining = payment.captured_amount - taken
    amount = remaining if wanted.amount is None else wanted.amount
    if amount > remaining or remaining <= 0:
        return Refused(
            RefusalCode.AMOUNT_TOO_LARGE,
            f"{max(remaining, 0)} remain of {payment.captured_amount} captured: {payment.refunded_amount} "
            f"refunded, {taken - payment.refunded_amount} in refunds under way.",
        )
    return _accepted(payment, wanted.kind, amount, operation_id, now_us)


def decide_changed(
    payment: Payment,
    version: int,
    description: str | None,
    metadata: Sequence[MetadataEntry] | None,
    now_us: int,
) -> Payment | Refused:
    """The next version with what is given; None leaves it as it is. `version` is what the client has seen."""
    if payment.version != version:
        return Refused(
            RefusalCode.VERSION_MISMATCH,
            f"The payment is at version {payment.version}, not {version}. Read it again.",
        )
    following = next_version(payment, payment.status, now_us)
    if description is not None:
        following.description = description
    if metadata is not None:
        del following.metadata[:]
        following.metadata.extend(metadata)
    return following


def _wrong_status(payment: Payment, wanted: Wanted) -> Refused:
    possible = " or ".join(NAME[status] for status in sorted(ASKED_FOR_IN[wanted.kind]))
    return Refused(
        RefusalCode.INVALID_TRANSITION,
        f"The payment is {NAME[payment.status]}; a {wanted.kind} is possible while it is {possible}.",
    )


def _end_authorization(
    payment: Payment, standing: Sequence[Standing], wanted: Wanted, operation_id: str, now_us: int
) -> Accepted | Refused:
    """One capture or one cancel: the first decides, unless it fails."""
    rival = next((item for item in standing if item.kind in _ENDS_AN_AUTHORIZATION), None)
    if rival is not None:
        return Refused(
            RefusalCode.INVALID_TRANSITION,
            f"A {rival.kind} of {rival.amount} is under way. Wait for its end.",
        )
    if payment.status == PENDING:
        return _canceled(payment, operation_id, now_us)
    amount = payment.amount if wanted.amount is None else wanted.amount
    if amount > payment.amount:
        return Refused(
            RefusalCode.AMOUNT_TOO_LARGE, f"{amount} is more than the {payment.amount} that are authorized."
        )
    return _accepted(payment, wanted.kind, amount, operation_id, now_us)


def _canceled(payment: Payment, operation_id: str, now_us: int) -> Accepted:
    """Nobody has claimed it: the PSP never hears of it."""
    succeeded = OperationStatus.OPERATION_STATUS_SUCCEEDED
    operation = _operation(operation_id, OperationKind.CANCEL, payment.amount, succeeded, now_us)
    following = next_version(payment, CANCELED, now_us)
    following.failure.code, following.failure.message = CANCELED_FAILURE
    _show(following, operation)
    return Accepted(following, operation, event=None, is_settled=True)


def _accepted(payment: Payment, kind: OperationKind, amount: int, operation_id: str, now_us: int) -> Accepted:
    pending = OperationStatus.OPERATION_STATUS_PENDING
    operation = _operation(operation_id, kind, amount, pending, now_us)
    following = next_version(payment, payment.status, now_us)
    _show(following, operation)
    return Accepted(following, operation, event=f"tollgate.{kind}.pending")


def _operation(
    operation_id: str, kind: OperationKind, amount: int, status: OperationStatus.ValueType, now_us: int
) -> Operation:
    return Operation(
        id=operation_id, type=OPERATION_TYPE[kind], amount=amount, status=status, created_at_us=now_us
    )


def _show(payment: Payment, operation: Operation) -> None:
    payment.operations.append(operation)
    del payment.operations[:-OPERATIONS_SHOWN]
