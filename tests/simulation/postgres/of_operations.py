"""Statements of claims, attempts, conclusions and requests, each in the words of its SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
import orjson

from tests.simulation.postgres.of_payments import (
    Column,
    add_operation,
    check_operation,
    operations_of,
    rows_of,
)
from tests.simulation.postgres.tables import Listed, Row, Transaction, refused

_REQUEST = (
    "merchant", "checkout_id", "operation_id", "step", "psp", "idempotency_key", "method", "path", "body",
    "position",
)  # fmt: skip


def _claimed(tx: Transaction, operation: Row) -> Row:
    payment = tx.tables.payments[operation["merchant"], operation["checkout_id"]]
    assessed = tx.tables.assessments.get((operation["merchant"], operation["checkout_id"]))
    return Row(
        payment
        | {
            "operation_id": operation["id"],
            "type": operation["type"],
            "operation_amount": operation["amount"],
            "operation_created_at": operation["created_at"],
            "fencing_token": operation["fencing_token"],
            "assessed_score": assessed["score"] if assessed else None,
        }
    )


def claimable(tx: Transaction, limit: int, except_psps: Sequence[str] = ()) -> list[Row]:
    due = [
        one
        for one in tx.tables.operations.values()
        if one["claimable_at"] is not None
        and one["claimable_at"] <= tx.now_us
        and one["psp"] not in except_psps
    ]
    due.sort(key=lambda one: one["claimable_at"])
    return [_claimed(tx, one) for one in due[:limit]]


def in_turn(tx: Transaction, psp: str, after: str, limit: int) -> list[Row]:
    due: dict[str, list[Row]] = {}
    for one in tx.tables.operations.values():
        if one["psp"] == psp and one["claimable_at"] is not None and one["claimable_at"] <= tx.now_us:
            due.setdefault(one["merchant"], []).append(one)
    merchants = sorted(merchant for merchant in due if merchant > after)[:limit]
    found: list[Row] = []
    for merchant in merchants:
        oldest = sorted(due[merchant], key=lambda one: one["claimable_at"])
        for one in oldest[: max(1, limit // len(merchants))]:
            found.append(Listed(merchant=merchant, checkout_id=one["checkout_id"], id=one["id"]))
    return found


def chosen(tx: Transaction, *columns: Column) -> list[Row]:
    return [_claimed(tx, tx.tables.operations[key]) for key in rows_of(columns)]


def taken(tx: Transaction, *columns: Column) -> list[Row]:
    found = []
    for key in sorted(rows_of(columns)):
        requests = [tx.tables.requests[step] for step in tx.tables.steps_of.get(key, ())]
        for request in sorted(requests, key=lambda row: row["position"]):
            step = (*key, request["step"])
            calls = [tx.tables.attempts[call] for call in sorted(tx.tables.calls_of.get(step, ()))]
            references = [call["reference"] for call in calls if call["reference"]]
            found.append(
                Row(
                    request
                    | {
                        "calls": [f"{call['kind']}:{call['outcome'] or ''}" for call in calls],
                        "reference": references[-1] if references else None,
                    }
                )
            )
    return found


def lease(tx: Transaction, *columns_and_rest: Any) -> list[Row]:
    *columns, lease_s, now_us = columns_and_rest
    for key in rows_of(columns):
        row = tx.tables.operations[key]
        tx.change(
            tx.tables.operations,
            key,
            fencing_token=row["fencing_token"] + 1,
            claimable_at=tx.now_us + round(lease_s * 1e6),
            claimed_at=row["claimed_at"] or now_us,
        )
    return []


def lock_payments(tx: Transaction, *columns: Column) -> list[Row]:
    keys = sorted(set(rows_of(columns)))
    return [Row(tx.tables.payments[key]) for key in keys if key in tx.tables.payments]


def lock_versions(tx: Transaction, *columns: Column) -> list[Row]:
    names = ("merchant", "checkout_id", "version", "operation_count")
    return [Row((name, row[name]) for name in names) for row in lock_payments(tx, *columns)]


def lock_held(tx: Transaction, *columns: Column) -> list[Row]:
    found = []
    for *key, token in sorted(rows_of(columns)):
        row = tx.tables.operations.get(tuple(key))
        if row is not None and row["fencing_token"] == token and row["status"] == "pending":
            found.append(Row(merchant=key[0], checkout_id=key[1], operation_id=key[2], fencing_token=token))
    return found


def conclude(tx: Transaction, *columns_and_time: Any) -> list[Row]:
    *columns, now_us = columns_and_time
    for merchant, checkout_id, number, status, code, message, after_s, parked in rows_of(columns):
        key = merchant, checkout_id, number
        row = tx.tables.operations[key]
        claimable_at = None if after_s is None else tx.now_us + round(after_s * 1e6)
        if status != "pending" and claimable_at is not None:
            raise refused("an operation that has ended is claimable")
        tx.change(
            tx.tables.operations,
            key,
            fencing_token=row["fencing_token"] + 1,
            status=status,
            failure_code=code,
            failure_message=message,
            claimable_at=claimable_at,
            parked_reason=parked,
            decided_at=now_us if status != "pending" else None,
        )
        check_operation(tx, tx.tables.operations[key])
    return []


def settle_payments(tx: Transaction, *columns_and_time: Any) -> list[Row]:
    *columns, now_us = columns_and_time
    for merchant, checkout_id, status, code, message in rows_of(columns):
        key = merchant, checkout_id, "payment"
        row = tx.tables.operations.get(key)
        if row is not None and row["status"] == "pending":
            tx.change(
                tx.tables.operations,
                key,
                status=status,
                failure_code=code,
                failure_message=message,
                claimable_at=None,
                parked_reason=None,
                fencing_token=row["fencing_token"] + 1,
                decided_at=now_us,
            )
    return []


def answer(tx: Transaction, *columns: Column) -> list[Row]:
    for *key, answered_at, outcome, evidence, reference, late in rows_of(columns):
        row = tx.tables.attempts.get(tuple(key))
        if row is not None and row["outcome"] is None:
            tx.change(
                tx.tables.attempts,
                tuple(key),
                answered_at=answered_at,
                outcome=outcome,
                evidence=evidence,
                reference=reference,
                late=late,
            )
    return []


def anomalies(tx: Transaction, *columns_and_time: Any) -> list[Row]:
    *columns, now_us = columns_and_time
    for merchant, checkout_id, operation_id, kind, evidence in rows_of(columns):
        _add_anomaly(tx, merchant, checkout_id, operation_id, kind, evidence, now_us)
    return []


def _add_anomaly(tx: Transaction, *content: Any) -> None:
    tx.tables.anomaly_ids += 1
    names = ("merchant", "checkout_id", "operation_id", "kind", "evidence", "detected_at")
    tx.put(tx.tables.anomalies, tx.tables.anomaly_ids, Row(zip(names, content, strict=True)))


def late_approvals(tx: Transaction, *columns_and_rest: Any) -> list[Row]:
    *columns, kind, now_us = columns_and_rest
    found = []
    for merchant, checkout_id, operation_id, evidence in rows_of(columns):
        row = tx.tables.operations.get((merchant, checkout_id, operation_id))
        if row is not None and row["status"] == "failed" and not _was_voided(tx, row, evidence):
            _add_anomaly(tx, merchant, checkout_id, operation_id, kind, evidence, now_us)
            found.append(Row(merchant=merchant, checkout_id=checkout_id, operation_id=operation_id))
    return found


def _was_voided(tx: Transaction, operation: Row, evidence: str) -> bool:
    payment = tx.tables.payments[operation["merchant"], operation["checkout_id"]]
    ended = payment["status"] == "canceled" or payment["failure_code"] == "action_expired"
    approved = orjson.loads(evidence)
    same = (approved.get("reference"), approved.get("captured")) == (payment["psp_reference"], False)
    return operation["type"] == "payment" and ended and same


def renew(tx: Transaction, *columns_and_lease: Any) -> list[Row]:
    *columns, lease_s = columns_and_lease
    held = lock_held(tx, *columns)
    for row in held:
        key = row["merchant"], row["checkout_id"], row["operation_id"]
        tx.change(tx.tables.operations, key, claimable_at=tx.now_us + round(lease_s * 1e6))
    return held


def insert_requests(tx: Transaction, *columns_and_time: Any) -> list[Row]:
    *columns, now_us = columns_and_time
    for row in rows_of(columns):
        request = Row(zip(_REQUEST, row, strict=True))
        step_key = row[:4]
        if step_key not in tx.tables.requests:
            tx.put(tx.tables.requests, step_key, Row(request | {"first_sent_at": now_us}))
            _listed(tx, tx.tables.steps_of.setdefault(row[:3], []), step_key)
    return []


def insert_attempts(tx: Transaction, *columns_and_time: Any) -> list[Row]:
    *columns, now_us = columns_and_time
    tables, stored = tx.tables, []
    for merchant, checkout_id, operation_id, step, number, kind, token in rows_of(columns):
        step_key = merchant, checkout_id, operation_id, step
        if step_key not in tables.requests:
            raise asyncpg.ForeignKeyViolationError("an attempt without its request")
        call_key = (*step_key, number)
        known = tables.attempts.get(call_key)
        if known is None:
            call = Row(
                kind=kind,
                fencing_token=token,
                sent_at=now_us,
                answered_at=None,
                outcome=None,
                late=False,
                evidence=None,
                reference="",
            )
            tx.put(tables.attempts, call_key, call)
            _listed(tx, tables.calls_of.setdefault(step_key, []), call_key)
        elif known["fencing_token"] == token and known["outcome"] is None:
            tx.change(tables.attempts, call_key, sent_at=now_us)
        else:
            continue
        stored.append(Row(merchant=merchant, checkout_id=checkout_id, operation_id=operation_id))
    return stored


def _listed(tx: Transaction, listing: list[Any], key: Any) -> None:
    listing.append(key)
    tx.undoing(lambda: listing.remove(key))


def store_assessments(tx: Transaction, *columns_and_time: Any) -> list[Row]:
    *columns, _now_us = columns_and_time
    for merchant, checkout_id, score, _reasons, declined in rows_of(columns):
        if (merchant, checkout_id) not in tx.tables.assessments:
            tx.put(tx.tables.assessments, (merchant, checkout_id), Row(score=score, declined=declined))
    return []


def by_key(tx: Transaction, merchant: str, checkout_id: str, idempotency_key: str) -> list[Row]:
    return [
        one for one in operations_of(tx, merchant, checkout_id) if one["idempotency_key"] == idempotency_key
    ]


def by_id(tx: Transaction, merchant: str, checkout_id: str, operation_id: str) -> list[Row]:
    row = tx.tables.operations.get((merchant, checkout_id, operation_id))
    return [row] if row is not None and row["number"] > 0 else []


def standing(tx: Transaction, merchant: str, checkout_id: str) -> list[Row]:
    return [
        one
        for one in operations_of(tx, merchant, checkout_id)
        if one["number"] > 0 and one["status"] != "failed"
    ]


def insert_operation(tx: Transaction, *args: Any) -> list[Row]:
    (
        merchant, checkout_id, operation_id, kind, amount, is_settled, created_at, number, idempotency_key,
        fingerprint, reason,
    ) = args  # fmt: skip
    add_operation(
        tx,
        Row(
            merchant=merchant,
            checkout_id=checkout_id,
            id=operation_id,
            type=kind,
            amount=amount,
            status="succeeded" if is_settled else "pending",
            created_at=created_at,
            claimable_at=None if is_settled else tx.now_us,
            decided_at=created_at if is_settled else None,
            number=number,
            idempotency_key=idempotency_key,
            fingerprint=fingerprint,
            reason=reason,
            psp=tx.tables.payments[merchant, checkout_id]["psp"],
        ),
    )
    return []


def never_execute(tx: Transaction, *args: Any) -> list[Row]:
    merchant, checkout_id, operation_id, code, message, now_us = args
    key = merchant, checkout_id, operation_id
    row = tx.tables.operations.get(key)
    if row is not None and row["status"] == "pending":
        tx.change(
            tx.tables.operations,
            key,
            status="failed",
            failure_code=code,
            failure_message=message,
            claimable_at=None,
            fencing_token=row["fencing_token"] + 1,
            decided_at=now_us,
        )
    return []


def raise_tokens(tx: Transaction, *columns: Column) -> list[Row]:
    for key in rows_of(columns):
        token = tx.tables.operations[key]["fencing_token"]
        tx.change(tx.tables.operations, key, fencing_token=token + 1)
    return []
