"""Statements of intake, of payments and of the outbox, each in the words of its SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from processor.operation_request import OPERATIONS_SHOWN
from tests.simulation.postgres.tables import Listed, Row, Transaction, check_change, refused

Column = Sequence[Any]

_PAYMENT = (
    "merchant", "checkout_id", "status", "version", "amount", "currency", "capture", "payment_method", "psp",
    "customer_id", "description", "return_url", "metadata", "fingerprint", "traceparent", "created_at",
    "updated_at", "expires_at",
)  # fmt: skip
_LATER = {
    "captured_amount": 0,
    "refunded_amount": 0,
    "psp_reference": "",
    "risk_score": None,
    "failure_code": "",
    "failure_message": "",
    "next_action_url": "",
    "operation_count": 0,
}


def rows_of(columns: Sequence[Column]) -> list[tuple[Any, ...]]:
    return list(zip(*columns, strict=True))


def insert_payments(tx: Transaction, *columns: Column) -> list[Row]:
    fresh = []
    for incoming in rows_of(columns):
        row = Row(zip(_PAYMENT, incoming, strict=True))
        key = row["merchant"], row["checkout_id"]
        if key in tx.tables.payments:
            continue
        row.update(_LATER)
        tx.put(tx.tables.payments, key, row)
        for event in [e for e, w in tx.tables.inbox.items() if (w["merchant"], w["checkout_id"]) == key]:
            if tx.tables.inbox[event]["due_at"] is not None:
                tx.change(tx.tables.inbox, event, due_at=tx.now_us)
        fresh.append(Row(merchant=key[0], checkout_id=key[1]))
    return fresh


def insert_operations(tx: Transaction, *columns_and_rest: Any) -> list[Row]:
    *columns, lease_s, now_us = columns_and_rest
    for merchant, checkout_id, amount, created_at, psp, token in rows_of(columns):
        row = Row(
            merchant=merchant,
            checkout_id=checkout_id,
            id="payment",
            type="payment",
            amount=amount,
            created_at=created_at,
            psp=psp,
            fencing_token=token,
            claimable_at=tx.now_us + token * round(lease_s * 1e6),
            claimed_at=now_us if token else None,
        )
        add_operation(tx, row)
    return []


def tell(tx: Transaction, *columns: Column) -> list[Row]:
    for merchant, checkout_id, version, _slice, event_type, snapshot, created_at, both in rows_of(columns):
        key = merchant, checkout_id
        add_outbox(tx, key, version, event_type, snapshot, created_at, None, with_acceptance=both)
    return []


def add_operation(tx: Transaction, given: Row) -> None:
    key = given["merchant"], given["checkout_id"], given["id"]
    row = Row(
        status="pending",
        failure_code="",
        failure_message="",
        claimed_at=None,
        decided_at=None,
        fencing_token=0,
        parked_reason=None,
        number=0,
        idempotency_key=None,
        fingerprint=None,
        reason="",
    )
    row.update(given)
    tx.put(tx.tables.operations, key, row)
    of_payment = tx.tables.operations_of.setdefault(key[:2], [])
    of_payment.append(key)
    tx.undoing(lambda: of_payment.remove(key))
    check_operation(tx, row)


def check_operation(tx: Transaction, row: Row) -> None:
    """What the trigger and the unique indexes of operations refuse."""
    if row["type"] == "payment" or row["status"] == "failed":
        return
    payment = tx.tables.payments[row["merchant"], row["checkout_id"]]
    others = [
        one for one in operations_of(tx, row["merchant"], row["checkout_id"]) if one["status"] != "failed"
    ]
    refunds = sum(one["amount"] for one in others if one["type"] == "refund")
    if refunds > payment["captured_amount"] or row["amount"] > payment["amount"]:
        raise refused(f"operation {row['id']} is more than the payment has")
    if sum(one["type"] in ("capture", "cancel") for one in others) > 1:
        raise refused(f"operation {row['id']} ends an authorization that another one ends")


def operations_of(tx: Transaction, merchant: str, checkout_id: str) -> list[Row]:
    keys = tx.tables.operations_of.get((merchant, checkout_id), ())
    return [tx.tables.operations[key] for key in keys]


def add_outbox(
    tx: Transaction,
    key: tuple[str, str],
    version: int,
    event_type: str,
    snapshot: bytes,
    created_at: int,
    operation_id: str | None,
    *,
    with_acceptance: bool = False,
) -> None:
    tables = tx.tables
    tables.outbox_ids += 1
    row = Row(
        id=tables.outbox_ids,
        merchant=key[0],
        checkout_id=key[1],
        version=version,
        event_type=event_type,
        operation_id=operation_id,
        snapshot=snapshot,
        created_at=created_at,
        with_acceptance=with_acceptance,
    )
    tx.put(tables.outbox, tables.outbox_ids, row)


def known(tx: Transaction, merchants: Column, checkout_ids: Column) -> list[Row]:
    found = [tx.tables.payments.get(key) for key in zip(merchants, checkout_ids, strict=True)]
    return [_part(row, "merchant", "checkout_id", "fingerprint") for row in found if row]


def _part(row: Row, *names: str) -> Row:
    return Row((name, row[name]) for name in names)


def shards(tx: Transaction, *columns_and_time: Any) -> list[Row]:
    *columns, _ingested_at = columns_and_time
    for merchant, checkout_id, shard, incarnation, epoch, sequence, *_times in rows_of(columns):
        key = merchant, checkout_id, shard, incarnation, epoch, sequence
        if key not in tx.tables.shards:
            tx.put(tx.tables.shards, key, Row(shard=shard))
            of_payment = tx.tables.shards_of.setdefault((merchant, checkout_id), {})
            if shard not in of_payment:
                of_payment[shard] = None
                tx.undoing(_forgetting(of_payment, shard))
    return []


def _forgetting(of_payment: dict[int, None], shard: int):  # type: ignore[no-untyped-def]
    return lambda: of_payment.pop(shard)


def ask_resends(tx: Transaction, *columns_and_time: Any) -> list[Row]:
    *columns, requested_at = columns_and_time
    for merchant, checkout_id, shard, _slice in rows_of(columns):
        key = merchant, checkout_id, shard
        tx.put(tx.tables.resends, key, Row(requested_at=requested_at, slice=_slice))
    return []


def conflicts(tx: Transaction, *columns_and_time: Any) -> list[Row]:
    *columns, _detected_at = columns_and_time
    found = []
    for merchant, checkout_id, *change, fingerprint, acceptance in rows_of(columns):
        key = merchant, checkout_id, *change
        if key not in tx.tables.conflicts:
            tx.put(tx.tables.conflicts, key, Row(fingerprint=fingerprint, acceptance=acceptance))
            found.append(Row(merchant=merchant, checkout_id=checkout_id, shard=change[0]))
    return found


def webhooks(tx: Transaction, *columns_and_time: Any) -> list[Row]:
    *columns, ingested_at = columns_and_time
    for psp, event_id, body, received_at in rows_of(columns):
        if (psp, event_id) in tx.tables.inbox:
            continue
        row = Row(
            psp=psp,
            event_id=event_id,
            body=body,
            received_at=received_at,
            ingested_at=ingested_at,
            applied_at=None,
            due_at=tx.now_us,
            tries=0,
            result=None,
            merchant=None,
            checkout_id=None,
            operation_id=None,
            reference="",
        )
        tx.put(tx.tables.inbox, (psp, event_id), row)
    return []


def advance(tx: Transaction, *columns: Column) -> list[Row]:
    for (
        merchant, checkout_id, status, version, updated_at, captured, refunded, reference, score, code,
        message, url, _slice, snapshot, event_type, operation_id,
    ) in rows_of(columns):  # fmt: skip
        key = merchant, checkout_id
        before = tx.tables.payments[key]
        after = Row(
            before
            | {
                "status": status,
                "version": version,
                "updated_at": updated_at,
                "captured_amount": captured,
                "refunded_amount": refunded,
                "psp_reference": reference,
                "risk_score": score,
                "failure_code": code,
                "failure_message": message,
                "next_action_url": url,
            }
        )
        check_change(before, after)
        tx.put(tx.tables.payments, key, after)
        add_outbox(tx, key, version, event_type, snapshot, updated_at, operation_id)
    return []


def amend(tx: Transaction, *args: Any) -> list[Row]:
    (
        merchant, checkout_id, status, version, updated_at, code, message, description, metadata, added,
        _slice, event_type, snapshot, operation_id,
    ) = args  # fmt: skip
    key = merchant, checkout_id
    before = tx.tables.payments[key]
    after = Row(
        before
        | {
            "status": status,
            "version": version,
            "updated_at": updated_at,
            "failure_code": code,
            "failure_message": message,
            "description": description,
            "metadata": metadata,
            "operation_count": before["operation_count"] + added,
        }
    )
    check_change(before, after)
    tx.put(tx.tables.payments, key, after)
    add_outbox(tx, key, version, event_type, snapshot, updated_at, operation_id)
    return [Row(operation_count=after["operation_count"])]


def shown_operations(tx: Transaction, payment: Row) -> str | None:
    if not payment["operation_count"]:
        return None
    shown = [one for one in operations_of(tx, payment["merchant"], payment["checkout_id"]) if one["number"]]
    shown.sort(key=lambda one: one["number"])
    names = ("id", "type", "amount", "status", "failure_code", "failure_message", "created_at")
    return orjson.dumps([[one[name] for name in names] for one in shown[-OPERATIONS_SHOWN:]]).decode()


def shown_of(tx: Transaction, merchants: Column, checkout_ids: Column) -> list[Row]:
    return [
        Row(
            merchant=key[0],
            checkout_id=key[1],
            shown_operations=shown_operations(tx, tx.tables.payments[key]),
        )
        for key in zip(merchants, checkout_ids, strict=True)
        if key in tx.tables.payments
    ]


def find(tx: Transaction, merchants: Column, checkout_ids: Column) -> list[Row]:
    rows = [tx.tables.payments.get(key) for key in zip(merchants, checkout_ids, strict=True)]
    return [Row(row | {"shown_operations": shown_operations(tx, row)}) for row in rows if row]


def lock(tx: Transaction, merchant: str, checkout_id: str) -> list[Row]:
    row = tx.tables.payments.get((merchant, checkout_id))
    return [Row(row)] if row else []


def unpublished(tx: Transaction, slices: Column, limit: int, held_since_us: int) -> list[Row]:
    from processor.storage.payments import slice_of

    found: list[Row] = []
    for _id, row in sorted(tx.tables.outbox.items()):
        key = row["merchant"], row["checkout_id"]
        is_held = row["event_type"] == "tollgate.payment.processing" and (
            held_since_us <= row["created_at"] <= held_since_us + 1_000_000
            and tx.tables.payments[key]["version"] == row["version"]
        )
        if slice_of(*key) in slices and not is_held:
            found.append(Listed(row | {"shards": list(tx.tables.shards_of.get(key, ()))}))
            if len(found) == limit:
                break
    return found


def mark_published(tx: Transaction, ids: Column, now_us: int) -> list[Row]:
    for number in ids:
        row = tx.tables.outbox.get(number)
        if row is not None:
            tx.delete(tx.tables.outbox, number)
            tx.put(tx.tables.published, number, Row(row | {"published_at": now_us}))
    return []


def owed_resends(tx: Transaction, slices: Column, limit: int) -> list[Row]:
    owed = []
    for (merchant, checkout_id, shard), row in tx.tables.resends.items():
        if row["slice"] in slices:
            payment = tx.tables.payments[merchant, checkout_id]
            shown = {"shown_operations": shown_operations(tx, payment)}
            owed.append(Row(payment | shown | {"shard": shard, "requested_at": row["requested_at"]}))
    return owed[:limit]


def mark_resent(tx: Transaction, *columns: Column) -> list[Row]:
    for merchant, checkout_id, shard, requested_at in rows_of(columns):
        row = tx.tables.resends.get((merchant, checkout_id, shard))
        if row is not None and row["requested_at"] == requested_at:
            tx.delete(tx.tables.resends, (merchant, checkout_id, shard))
    return []


def prune(_tx: Transaction, _before_us: int, _limit: int) -> list[Row]:
    """Nothing is thirty days old here."""
    return []
