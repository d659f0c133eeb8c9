"""What Postgres has decided. SQL of its own (decision 6): nothing of the processor lies in between.

All tables as of one moment (REPEATABLE READ), through cursors on the server: memory is a few thousand rows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Final

from tollgate.cli.proof.recorder import Recorder
from tollgate.cli.proof.testimony import Kind, Operation, Row, State
from tollgate.errors import OperationalError
from tollgate.ids import payment_key

if TYPE_CHECKING:
    import asyncpg

_AT_ONCE: Final = 5_000
_CONNECT_S: Final = 5.0
_COMMAND_S: Final = 120.0
_EPOCH_US: Final = 946_684_800_000_000  # 2000-01-01T00:00:00Z, where Postgres' times begin

_PAYMENTS = """
    SELECT merchant, checkout_id, status, version, amount, currency, captured_amount, refunded_amount,
    capture,
        payment_method, fingerprint, updated_at, psp, created_at, failure_code,
        concat_ws(' | ', payment_method, customer_id, description, return_url, metadata, psp_reference,
                  failure_message, next_action_url) AS texts
    FROM payments"""
_OPERATIONS = """
    SELECT merchant, checkout_id, id, type, amount, status, coalesce(idempotency_key, '') AS idempotency_key,
        coalesce(parked_reason, '') AS parked_reason, created_at,
        coalesce(decided_at, created_at) AS changed_at
    FROM operations WHERE type <> 'payment' OR parked_reason IS NOT NULL"""
_SHIPPED_BY = "SELECT DISTINCT merchant, checkout_id, shard FROM payment_shards"
_CONFLICTS = "SELECT merchant, checkout_id, fingerprint FROM payment_conflicts"
_ANOMALIES = "SELECT merchant, checkout_id, kind FROM anomalies"
_UNPUBLISHED = "SELECT merchant, checkout_id, created_at FROM outbox WHERE published_at IS NULL"
_DEAD_LETTERS = """
    SELECT origin_topic, origin_partition, origin_offset FROM dead_letters WHERE taken_in_at IS NULL"""

# Everything else that holds what came from outside: looked through for what must be nowhere.
_TEXTS: Final = {
    "psp_requests": "SELECT merchant || '/' || checkout_id, body FROM psp_requests",
    "attempts": "SELECT merchant || '/' || checkout_id, convert_to(evidence::text, 'UTF8') FROM attempts "
    "WHERE evidence IS NOT NULL",
    "webhook_inbox": "SELECT psp || '/' || event_id, body FROM webhook_inbox",
    "operations": "SELECT merchant || '/' || checkout_id, convert_to(concat_ws(' | ', idempotency_key, "
    "reason, failure_message), 'UTF8') FROM operations WHERE type <> 'payment'",
    "customers": "SELECT merchant || '/' || id, convert_to(concat_ws(' | ', name, email, description, "
    "metadata), 'UTF8') FROM customers",
    "payment_methods": "SELECT merchant || '/' || id, convert_to(concat_ws(' | ', token, customer_id, "
    "description, metadata), 'UTF8') FROM payment_methods",
    "anomalies": "SELECT merchant || '/' || checkout_id, convert_to(evidence::text, 'UTF8') FROM anomalies",
}

Record = Any  # asyncpg's
OpenLetters = frozenset[tuple[str, int, int]]


async def read_postgres(dsn: str, recorder: Recorder) -> OpenLetters:
    """Returns where the dead letters come from that nobody has taken in. Raises OperationalError."""
    import asyncpg

    try:
        connection = await asyncpg.connect(dsn, timeout=_CONNECT_S, command_timeout=_COMMAND_S)
        try:
            await connection.set_type_codec(
                "timestamptz",
                schema="pg_catalog",
                encoder=lambda at_us: (at_us - _EPOCH_US,),
                decoder=lambda value: value[0] + _EPOCH_US,
                format="tuple",
            )
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await _read_all(connection, recorder)
        finally:
            await connection.close(timeout=_CONNECT_S)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise OperationalError(
            f"Postgres could not be read ({type(error).__name__}: {error}). Look at `tollgate status`; the "
            "DSN is in stack.json."
        ) from error


async def _read_all(connection: asyncpg.Connection[Any], recorder: Recorder) -> OpenLetters:
    await _payments(connection, recorder)

    async def each(query: str, kind: Kind, record: Callable[[Record], tuple[Any, ...]]) -> None:
        async for row in _rows(connection, query):
            recorder.add(kind, payment_key(row["merchant"], row["checkout_id"]), record(row))

    await each(_OPERATIONS, Kind.OPERATION, lambda row: Operation(*list(row.values())[2:]))
    await each(_SHIPPED_BY, Kind.SHIPPED_BY, lambda row: (row["shard"],))
    await each(_CONFLICTS, Kind.CONFLICT, lambda row: (row["fingerprint"],))
    await each(_ANOMALIES, Kind.ANOMALY, lambda row: (row["kind"],))
    await each(_UNPUBLISHED, Kind.UNPUBLISHED, lambda row: (row["created_at"],))
    for table, query in _TEXTS.items():
        async for place, raw in _rows(connection, query):
            recorder.leaked(recorder.leaks.in_text(raw), f"Postgres, table {table}", place)
    return frozenset([tuple(row) async for row in _rows(connection, _DEAD_LETTERS)])


async def _payments(connection: asyncpg.Connection[Any], recorder: Recorder) -> None:
    total = await connection.fetchval("SELECT count(*) FROM payments")
    read = 0
    async for row in _rows(connection, _PAYMENTS):
        merchant, checkout_id, *fields, texts = row
        key = payment_key(merchant, checkout_id)
        recorder.leaked(recorder.leaks.in_text(texts.encode()), "Postgres, table payments", key)
        recorder.add(Kind.ROW, key, Row(State(*fields[:10]), *fields[10:]))
        read += 1
        if read % _AT_ONCE == 0 or read == total:
            recorder.progress("Postgres", read, total)


async def _rows(connection: asyncpg.Connection[Any], query: str) -> AsyncIterator[Record]:
    cursor = await connection.cursor(query)
    while rows := await cursor.fetch(_AT_ONCE):
        for row in rows:
            yield row
