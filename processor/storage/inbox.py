"""The inbox of webhooks: each event once, by (psp, event id); received is one thing, applied another.

`apply_events` takes those that are due and in nobody's hands, and in one transaction: finds what each is
about, locks those payments, lets the pure decision run on them as they are, and writes what it comes to as an
answer's would be, with the event's own result. An operation that a report decides has its fencing token
raised: the answer to a call that is under way is late then. An event that can't be matched yet is looked at
again, ever more rarely, until its time is over; it stays for ever, as all of the inbox does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import orjson
from asyncpg import Record

from processor.outcome import Decision
from processor.psp.webhook import Irrelevant, Reading, Report, Unreadable
from processor.storage.database import Connection, Pool, columns_of, translated
from processor.storage.locks import lock_payments
from processor.storage.operations import (
    CLAIM_COLUMNS,
    Conclusion,
    claim_from,
    store_anomalies,
    with_steps,
    write_decided,
)
from processor.webhook_outcome import Apply, Contradiction, Early, Known, Standing, Verdict
from tollgate.ids import split_payment_key
from tollgate.v1.payment_pb2 import Payment

KEPT_US: Final = 7 * 24 * 3600 * 1_000_000  # an event that fits nothing is looked at again for so long
# Between two looks at an event: it doubles, up to this. What is on its way comes within seconds.
_LOOK_MAX_S: Final = 3600.0
_LOOK_MAX_EARLY_S: Final = 30.0
_TRIES_COUNTED: Final = 12

_DUE: Final = """
SELECT psp, event_id FROM webhook_inbox WHERE due_at <= now() ORDER BY due_at LIMIT $1
"""

_TAKE: Final = """
SELECT w.psp, w.event_id, w.body, w.ingested_at, w.tries
FROM unnest($1::text[], $2::text[]) AS k (psp, event_id)
JOIN webhook_inbox AS w ON w.psp = k.psp AND w.event_id = k.event_id
WHERE w.due_at <= now()
ORDER BY w.psp, w.event_id
FOR UPDATE OF w SKIP LOCKED
"""

_BY_REQUEST: Final = """
SELECT r.idempotency_key, r.psp, r.merchant, r.checkout_id, r.operation_id
FROM unnest($1::text[]) AS k (idempotency_key)
JOIN psp_requests AS r ON r.idempotency_key = k.idempotency_key
"""

_OPERATIONS: Final = f"""
SELECT {CLAIM_COLUMNS}, o.status AS operation_status
FROM unnest($1::text[], $2::text[]) AS w (merchant, checkout_id)
JOIN payments AS p ON p.merchant = w.merchant AND p.checkout_id = w.checkout_id
JOIN operations AS o ON o.merchant = w.merchant AND o.checkout_id = w.checkout_id
LEFT JOIN risk.assessments AS k ON k.merchant = o.merchant AND k.checkout_id = o.checkout_id
ORDER BY o.merchant, o.checkout_id, o.created_at, o.id
FOR UPDATE OF o
"""  # noqa: S608

_REFERENCES: Final = """
SELECT i.merchant, i.checkout_id, i.operation_id, i.reference
FROM unnest($1::text[], $2::text[]) AS w (merchant, checkout_id)
JOIN webhook_inbox AS i ON i.merchant = w.merchant AND i.checkout_id = w.checkout_id
WHERE i.result = 'applied' AND i.reference <> ''
"""

_RAISE_TOKENS: Final = """
UPDATE operations AS o SET fencing_token = o.fencing_token + 1
FROM unnest($1::text[], $2::text[], $3::text[]) AS c (merchant, checkout_id, id)
WHERE o.merchant = c.merchant AND o.checkout_id = c.checkout_id AND o.id = c.id
"""

_SETTLE: Final = """
UPDATE webhook_inbox AS w SET
    tries = w.tries + 1, result = s.result,
    due_at = CASE WHEN s.result IS NULL THEN now() + make_interval(secs => s.after_s) END,
    applied_at = CASE WHEN s.result IS NOT NULL THEN $8::timestamptz END,
    merchant = s.merchant, checkout_id = s.checkout_id, operation_id = s.operation_id,
    reference = s.reference
FROM unnest($1::text[], $2::text[], $3::text[], $4::float8[], $5::text[], $6::text[], $7::text[], $9::text[])
    AS s (psp, event_id, result, after_s, merchant, checkout_id, operation_id, reference)
WHERE w.psp = s.psp AND w.event_id = s.event_id
"""


class EventKey(NamedTuple):
    psp: str
    event_id: str


@dataclass(frozen=True, slots=True)
class Event:
    key: EventKey
    body: bytes
    ingested_at_us: int
    tries: int


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of an event. `result` is None while it waits, and `detail` says for what."""

    key: EventKey
    result: str | None
    detail: str = ""
    after_s: float = 0.0
    merchant: str | None = None
    checkout_id: str | None = None
    operation_id: str | None = None
    reference: str = ""


@dataclass(slots=True)
class Applied:
    """What a transaction came to. `anomalies` are the contradictions; those of decisions are in `decided`."""

    settled: list[Settled] = field(default_factory=list)
    decided: list[tuple[Conclusion, Decision]] = field(default_factory=list)
    anomalies: list[tuple[str, str, str, str, str]] = field(default_factory=list)


Read = Callable[[Event], Reading | None]  # None: no adapter of that PSP is set up here
Decide = Callable[[Payment, Sequence[Standing], Report], Verdict]


async def due_events(pool: Pool, limit: int) -> list[EventKey]:
    """Those due longest. Raises OperationalError when Postgres can't answer."""
    with translated("looking for webhooks"):
        return [EventKey(row["psp"], row["event_id"]) for row in await pool.fetch(_DUE, limit)]


async def apply_events(
    pool: Pool, keys: Sequence[EventKey], read: Read, decide: Decide, now_us: int
) -> Applied:
    """Those that are still due and in nobody's hands; of one payment the first, the others stay due. Raises
    RejectedInput when Postgres refuses what one of them comes to: then nothing is written.
    """
    with translated("applying webhooks"):
        async with pool.acquire() as connection, connection.transaction():
            rows = await connection.fetch(_TAKE, *columns_of(keys))
            applied = Applied()
            reports = _read_all([_event(row) for row in rows], read, applied, now_us)
            if reports:
                await _apply_reports(connection, reports, decide, applied, now_us)
            if applied.settled:
                await _settle(connection, applied.settled, now_us)
            return applied


async def refuse_event(pool: Pool, key: EventKey, now_us: int) -> None:
    """Nothing more is done with it; it stays for a person."""
    with translated("setting a webhook aside"):
        async with pool.acquire() as connection:
            await _settle(connection, [Settled(key, "refused")], now_us)


def _event(row: Record) -> Event:
    return Event(EventKey(row["psp"], row["event_id"]), row["body"], row["ingested_at"], row["tries"])


def _read_all(
    events: Sequence[Event], read: Read, applied: Applied, now_us: int
) -> list[tuple[Event, Report]]:
    reports: list[tuple[Event, Report]] = []
    for event in events:
        match read(event):
            case Report() as report:
                reports.append((event, report))
            case Irrelevant(reason):
                applied.settled.append(Settled(event.key, "irrelevant", reason))
            case Unreadable(reason):
                applied.settled.append(Settled(event.key, "unreadable", reason))
            case None:
                reason = "no adapter of this PSP is set up"
                applied.settled.append(_waiting(event, reason, now_us, _LOOK_MAX_EARLY_S))
    return reports


async def _apply_reports(
    connection: Connection,
    reports: Sequence[tuple[Event, Report]],
    decide: Decide,
    applied: Applied,
    now_us: int,
) -> None:
    named = await _named_by_request(connection, reports)
    about: dict[tuple[str, str], tuple[Event, Report]] = {}
    for event, told in reports:
        report = _resolved(event, told, named)
        key = _payment_key(report)
        if key is None:
            applied.settled.append(_waiting(event, "it names no payment of ours", now_us))
        else:
            about.setdefault(key, (event, report))
    if not about:
        return
    payments = await lock_payments(connection, list(about))
    standing = await _standing(connection, list(payments)) if payments else {}
    for key, (event, report) in about.items():
        payment = payments.get(key)
        if payment is None or payment.psp != event.key.psp:
            unknown = _waiting(event, "the payment is not known", now_us)
            applied.settled.append(_of_payment(unknown, key))
            continue
        operations = standing.get(key, [])
        operations = [replace(one, claim=replace(one.claim, payment=payment)) for one in operations]
        verdict = decide(payment, operations, report)
        applied.settled.append(_of_payment(_take(event, report, key, verdict, applied, now_us), key))
    await _write(connection, applied, now_us)


def _take(
    event: Event, report: Report, key: tuple[str, str], verdict: Verdict, applied: Applied, now_us: int
) -> Settled:
    evidence = _evidence(event, report)
    match verdict:
        case Apply(claim, decision):
            applied.decided.append(
                (Conclusion(claim, lambda _payment: decision, evidence=evidence), decision)
            )
            result = "anomaly" if decision.anomaly else "applied"
            reference = getattr(report.outcome, "reference", "")
            detail, about = decision.anomaly or "", claim.operation_id
            return Settled(event.key, result, detail, operation_id=about, reference=reference)
        case Known(operation_id):
            return Settled(event.key, "known", operation_id=operation_id)
        case Early(reason):
            return _waiting(event, reason, now_us, _LOOK_MAX_EARLY_S)
        case Contradiction(kind, operation_id):
            applied.anomalies.append((*key, operation_id, kind, evidence))
            return Settled(event.key, "anomaly", kind, operation_id=operation_id)


async def _write(connection: Connection, applied: Applied, now_us: int) -> None:
    if applied.decided:
        keys = [conclusion.claim.key for conclusion, _decision in applied.decided]
        await connection.execute(_RAISE_TOKENS, *columns_of(keys))
        await write_decided(connection, applied.decided, now_us)
    await store_anomalies(connection, applied.anomalies, now_us)


async def _named_by_request(
    connection: Connection, reports: Sequence[tuple[Event, Report]]
) -> dict[tuple[str, str], Record]:
    keys = sorted({report.subject.request_key for _event, report in reports if report.subject.request_key})
    rows = await connection.fetch(_BY_REQUEST, keys) if keys else []
    return {(row["psp"], row["idempotency_key"]): row for row in rows}


def _resolved(event: Event, report: Report, named: dict[tuple[str, str], Record]) -> Report:
    """With payment and operation named, where a stored request names them."""
    row = named.get((event.key.psp, report.subject.request_key))
    if row is None:
        return report
    subject = replace(
        report.subject,
        payment_key=f"{row['merchant']}/{row['checkout_id']}",
        operation_id=row["operation_id"],
    )
    return replace(report, subject=subject)


def _payment_key(report: Report) -> tuple[str, str] | None:
    try:
        return split_payment_key(report.subject.payment_key)
    except ValueError:
        return None


async def _standing(
    connection: Connection, keys: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], list[Standing]]:
    rows = await connection.fetch(_OPERATIONS, *columns_of(keys))
    claims = await with_steps(connection, [claim_from(row, lease_ends=0.0) for row in rows])
    called: dict[tuple[str, str, str], set[str]] = {}
    for row in await connection.fetch(_REFERENCES, *columns_of(keys)):
        about = row["merchant"], row["checkout_id"], row["operation_id"]
        called.setdefault(about, set()).add(row["reference"])
    standing: dict[tuple[str, str], list[Standing]] = {}
    for row, claim in zip(rows, claims, strict=True):
        one = Standing(claim, row["operation_status"], frozenset(called.get(claim.key, ())))
        standing.setdefault(claim.key[:2], []).append(one)
    return standing


async def _settle(connection: Connection, settled: Sequence[Settled], now_us: int) -> None:
    rows = [
        (*one.key, one.result, one.after_s, one.merchant, one.checkout_id, one.operation_id)
        for one in settled
    ]
    references = [one.reference for one in settled]
    await connection.execute(_SETTLE, *columns_of(rows), now_us, references)


def _waiting(event: Event, reason: str, now_us: int, most_s: float = _LOOK_MAX_S) -> Settled:
    if now_us - event.ingested_at_us >= KEPT_US:
        return Settled(event.key, "unmatched", reason)
    return Settled(event.key, None, reason, min(2.0 ** min(event.tries, _TRIES_COUNTED), most_s))


def _of_payment(settled: Settled, key: tuple[str, str]) -> Settled:
    return replace(settled, merchant=key[0], checkout_id=key[1])


def _evidence(event: Event, report: Report) -> str:
    """What was told, and where it is kept. NUL is the one character that Postgres' JSON can't hold."""
    told = {
        "webhook": {"psp": event.key.psp, "event_id": event.key.event_id},
        "kind": report.kind,
        "outcome": type(report.outcome).__name__,
        "told": report.outcome,
    }
    return orjson.dumps(told).decode().replace("\\u0000", "")
