"""What the other witnesses would say of payments that only a shard has, each as its own part writes it.

The shard's store is filled by the shard itself (`benchmarks.fill`), its own tailer ships the changes.
Postgres' rows, the events and statuses, the PSP's ledger and the client log are made here, of payments that
succeeded in three versions.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import asyncpg
import orjson
from confluent_kafka import Producer

from processor.event import event_record, status_record
from processor.storage.migrate import migrate
from tollgate.cli.proof.read_stores import stored_payments
from tollgate.client_log import ClientLog
from tollgate.ids import PAYMENT_OPERATION, psp_idempotency_key
from tollgate.local.simulator.charges import Effect, Execution
from tollgate.payment_json import payment_document
from tollgate.status import PENDING, PROCESSING, SUCCEEDED, StatusValue
from tollgate.v1.payment_pb2 import Capture, Payment

_VERSIONS: Final = ((1, PENDING), (2, PROCESSING), (3, SUCCEEDED))
_STEP_US: Final = 1_000
_LINE_OF: Final = 500  # executions of a journal's line
_COPIED_AT_ONCE: Final = 20_000


def accepted(store: Path) -> Iterator[Payment]:
    """Every payment of a shard's store, as it is there."""
    return (Payment.FromString(raw) for _key, raw in stored_payments(store))


def at(payment: Payment, version: int, status: StatusValue) -> Payment:
    """How it stood at `version`."""
    found = Payment()
    found.CopyFrom(payment)
    found.ClearField("change_sequence")
    found.version, found.status = version, status
    found.updated_at_us = payment.created_at_us + version * _STEP_US
    is_done = status == SUCCEEDED
    found.captured_amount = payment.amount if is_done else 0
    found.psp_reference = _charge_id(payment) if is_done else ""
    return found


def last(payment: Payment) -> Payment:
    return at(payment, *_VERSIONS[-1])


def write_journal(payments: Iterable[Payment], path: Path) -> None:
    """The simulator's ledger, of one charge each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        records: list[dict[str, Any]] = []
        for payment in payments:
            records.append({"executed": asdict(_execution(payment))})
            if len(records) >= _LINE_OF:
                file.write(_line(records))
                records = []
        if records:
            file.write(_line(records))


def _line(records: list[dict[str, Any]]) -> bytes:
    payload = orjson.dumps(records)
    return b"%08x %b\n" % (zlib.crc32(payload), payload)


def _execution(payment: Payment) -> Execution:
    key = psp_idempotency_key(payment.merchant, payment.checkout_id, PAYMENT_OPERATION, "charge")
    at_us = payment.created_at_us + _STEP_US
    effect = Effect(
        _charge_id(payment), "charge", payment.checkout_id, payment.merchant, key, payment.amount,
        payment.currency, at_us,
    )  # fmt: skip
    charge = {
        "id": effect.id,
        "status": "succeeded",
        "reference": f"{payment.merchant}/{payment.checkout_id}",
        "amount": payment.amount,
    }
    return Execution(key, "", 200, charge, effect=effect)


def _charge_id(payment: Payment) -> str:
    return f"ch_{zlib.crc32(payment.checkout_id.encode()):024x}"


def write_topics(payments: Iterable[Payment], bootstrap: str, shard: int) -> None:
    """Three events each, and the last status."""
    producer = Producer(
        {"bootstrap.servers": bootstrap, "linger.ms": 50, "enable.idempotence": True, "log_level": 2}
    )
    for payment in payments:
        outgoing = [event_record(at(payment, *version), "tollgate.payment") for version in _VERSIONS]
        snapshot = last(payment).SerializeToString()
        outgoing.append(status_record(outgoing[0].key, snapshot, shard, payment.created_at_us))
        for record in outgoing:
            headers: list[tuple[str, str | bytes | None]] = list(record.headers)
            while True:
                try:
                    partition = -1 if record.partition is None else record.partition
                    producer.produce(record.topic, record.value, record.key, partition, headers=headers)
                    break
                except BufferError:
                    producer.poll(0.5)
        producer.poll(0)
    producer.flush(120)


async def write_rows(payments: Iterable[Payment], dsn: str, shard: int) -> None:
    migrate(dsn)
    connection = await asyncpg.connect(dsn)
    try:
        batch: list[Payment] = []
        for payment in payments:
            batch.append(last(payment))
            if len(batch) >= _COPIED_AT_ONCE:
                await _copy(connection, batch, shard)
                batch = []
        await _copy(connection, batch, shard)
    finally:
        await connection.close()


async def _copy(connection: asyncpg.Connection[Any], payments: list[Payment], shard: int) -> None:
    from datetime import UTC, datetime

    def time(at_us: int) -> datetime:
        return datetime.fromtimestamp(at_us / 1e6, UTC)

    key = [(payment.merchant, payment.checkout_id) for payment in payments]
    tables: dict[str, tuple[str, list[tuple[Any, ...]]]] = {
        "payments": (
            "merchant checkout_id status version amount currency capture payment_method psp customer_id "
            "description return_url metadata fingerprint traceparent created_at updated_at expires_at "
            "captured_amount psp_reference",
            [
                (
                    *(payment.merchant, payment.checkout_id, "succeeded", payment.version, payment.amount),
                    payment.currency,
                    "manual" if payment.capture == Capture.CAPTURE_MANUAL else "automatic",
                    *(payment.payment_method, payment.psp, payment.customer_id, payment.description),
                    payment.return_url,
                    orjson.dumps([[entry.key, entry.value] for entry in payment.metadata]).decode(),
                    *(payment.fingerprint, payment.traceparent, time(payment.created_at_us)),
                    *(time(payment.updated_at_us), time(payment.expires_at_us)),
                    *(payment.captured_amount, payment.psp_reference),
                )
                for payment in payments
            ],
        ),
        "payment_shards": (
            "merchant checkout_id shard incarnation epoch sequence committed_at shipped_at ingested_at",
            [(*one, shard, b"x" * 16, 1, number, *[time(0)] * 3) for number, one in enumerate(key)],
        ),
        "operations": (
            "merchant checkout_id id type amount status created_at decided_at psp",
            [
                (
                    *(payment.merchant, payment.checkout_id, PAYMENT_OPERATION, "payment", payment.amount),
                    *("succeeded", time(payment.created_at_us), time(payment.updated_at_us), "simulator"),
                )
                for payment in payments
            ],
        ),
        "psp_requests": (
            "merchant checkout_id operation_id step psp idempotency_key method path body first_sent_at",
            [
                (
                    *one,
                    PAYMENT_OPERATION,
                    "charge",
                    "simulator",
                    "key",
                    "POST",
                    "/v1/charges",
                    b"{}" * 130,
                    time(0),
                )
                for one in key
            ],
        ),
    }
    for table, (columns, records) in tables.items():
        await connection.copy_records_to_table(table, records=records, columns=columns.split())


def write_client_log(payments: Iterable[Payment], path: Path) -> None:
    """A 202, a poll that found nothing new, and one that found the end."""
    with ClientLog(path) as log:
        for payment in payments:
            url = f"/v1/payments/{payment.checkout_id}"
            request = {
                "amount": payment.amount,
                "currency": payment.currency,
                "payment_method": payment.payment_method,
                "customer_id": payment.customer_id,
                "metadata": {entry.key: entry.value for entry in payment.metadata},
            }
            began = payment.created_at_us
            pending, done = (
                orjson.dumps(payment_document(found)) for found in (at(payment, 0, PENDING), last(payment))
            )
            calls: list[tuple[int, str, str, int, bytes, Any]] = [
                (began, "POST", "/v1/payments", 202, pending, request),
                (began + _STEP_US // 2, "GET", url, 304, b"", None),
                (began + 2_000_000, "GET", url, 200, done, None),
            ]
            for at_us, method, path_of_call, status, body, asked in calls:
                log.write(
                    sent_us=at_us,
                    at_us=at_us + 100,
                    method=method,
                    path=path_of_call,
                    status=status,
                    body=body,
                    checkout_id=payment.checkout_id,
                    request=asked,
                    etag='"0"' if status == 304 else "",
                )
