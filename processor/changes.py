"""A record of payments.changes into what intake stores. Pure: what can't be stored is told apart by content
alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from processor.storage.intake import Acceptance, Origin, ReceivedWebhook
from tollgate.ids import CHECKOUT_ID, MERCHANT, payment_key
from tollgate.money import AMOUNT_MAX, is_currency
from tollgate.status import PENDING
from tollgate.topics import SHARDS_MAX
from tollgate.v1.change_pb2 import Change
from tollgate.v1.payment_pb2 import Capture, Payment

FIRST_VERSION: Final = 1
_TIME_MAX_US: Final = 4_102_444_800_000_000  # the year 2100: beyond it a clock is broken, not late


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """One record as Kafka had it."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]]
    timestamp_us: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A content that no retry can mend. `reason` names no value of it."""

    reason: str


def parse(record: ChangeRecord, now_us: int) -> Acceptance | ReceivedWebhook | Refused:
    try:
        change = Change.FromString(record.value)
    except DecodeError:
        return Refused("the value is not a Change")
    if change.key.encode() != record.key:
        return Refused("the record's key is not the change's")
    match change.WhichOneof("body"):
        case "acceptance":
            problem = _problem(change)
            return Refused(problem) if problem else _acceptance(change, record, now_us)
        case "webhook":
            webhook = change.webhook
            if not (webhook.psp and webhook.event_id and 0 < webhook.received_at_us < _TIME_MAX_US):
                return Refused("the webhook has no PSP, event id or time")
            return ReceivedWebhook(webhook.psp, webhook.event_id, webhook.body, webhook.received_at_us)
        case _:
            return Refused("the change is neither an acceptance nor a webhook")


def _problem(change: Change) -> str | None:
    """The first rule that the shard's admission should have held and that doesn't hold."""
    payment = change.acceptance
    times = (
        change.committed_at_us,
        payment.created_at_us,
        payment.expires_at_us,
    )
    rules = {
        "the merchant or the checkout id is malformed": MERCHANT.fullmatch(payment.merchant)
        and CHECKOUT_ID.fullmatch(payment.checkout_id),
        "the key is not the payment's": change.key == payment_key(payment.merchant, payment.checkout_id),
        "the amount is out of range": 1 <= payment.amount <= AMOUNT_MAX,
        "the currency is unknown": is_currency(payment.currency),
        "the capture is unknown": payment.capture in (Capture.CAPTURE_AUTOMATIC, Capture.CAPTURE_MANUAL),
        "the payment method or the PSP is missing": payment.payment_method and payment.psp,
        "the fingerprint is not a SHA-256": len(payment.fingerprint) == 32,
        "a time is out of range": min(times) > 0 and max(times) < _TIME_MAX_US,
        "the change has no place in a shard's log": change.shard < SHARDS_MAX
        and len(change.incarnation) == 16
        and 0 < change.sequence < 2**63
        and change.epoch < 2**63,
    }
    if all(rules.values()):
        return None
    return next(problem for problem, holds in rules.items() if not holds)


def _acceptance(change: Change, record: ChangeRecord, now_us: int) -> Acceptance:
    payment = Payment()
    payment.CopyFrom(change.acceptance)
    payment.status = PENDING
    payment.version = FIRST_VERSION
    payment.ClearField("change_sequence")  # its shard's own: no row has it
    payment.updated_at_us = max(now_us, payment.created_at_us)
    origin = Origin(
        shard=change.shard,
        incarnation=change.incarnation,
        epoch=change.epoch,
        sequence=change.sequence,
        committed_at_us=change.committed_at_us,
        shipped_at_us=record.timestamp_us,
    )
    return Acceptance(origin, payment, change.acceptance.SerializeToString())
