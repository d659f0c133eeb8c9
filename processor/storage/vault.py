"""Customers and payment methods: made, found, listed, deleted; and what payments name of them.

Everything is one merchant's. Under an idempotency key a thing is made once: the key is unique in the
database, so of two at once one makes it and the other finds it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import orjson
from asyncpg import Record

from processor.operation_request import RefusalCode, Refused
from processor.storage.database import Pool, columns_of, translated
from processor.storage.payments import metadata_from, stored_metadata
from processor.vault import CUSTOMER_PREFIX, Kept, Name
from tollgate.v1.ledger_pb2 import Customer, PaymentMethod

_CUSTOMER: Final = "SELECT id, name, email, description, metadata, fingerprint, created_at FROM customers"
_METHOD: Final = """
SELECT id, token, customer_id, description, metadata, fingerprint, created_at FROM payment_methods
"""

_INSERT_CUSTOMER: Final = """
INSERT INTO customers (merchant, idempotency_key, fingerprint, id, name, email, description, metadata,
                       created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8::json, $9)
ON CONFLICT (merchant, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
RETURNING id
"""
_INSERT_METHOD: Final = """
INSERT INTO payment_methods (merchant, idempotency_key, fingerprint, id, token, customer_id, description,
                             metadata, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8::json, $9)
ON CONFLICT (merchant, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
RETURNING id
"""

_BY_KEY: Final = "WHERE merchant = $1 AND idempotency_key = $2"
_BY_ID: Final = "WHERE merchant = $1 AND id = $2"
_STANDING: Final = "AND deleted_at IS NULL"
_NEWEST_FIRST: Final = "ORDER BY created_at DESC, id DESC LIMIT $2"

_DELETE: Final = """
UPDATE payment_methods SET deleted_at = coalesce(deleted_at, $3) WHERE merchant = $1 AND id = $2 RETURNING id
"""

_CUSTOMERS_NAMED: Final = """
SELECT c.merchant, c.id FROM unnest($1::text[], $2::text[]) AS n (merchant, id)
JOIN customers AS c ON c.merchant = n.merchant AND c.id = n.id
"""
_METHODS_NAMED: Final = """
SELECT m.merchant, m.id, m.token, m.customer_id, m.deleted_at IS NOT NULL AS is_deleted
FROM unnest($1::text[], $2::text[]) AS n (merchant, id)
JOIN payment_methods AS m ON m.merchant = n.merchant AND m.id = n.id
"""

ThingT = TypeVar("ThingT", Customer, PaymentMethod)


@dataclass(frozen=True, slots=True)
class Created(Generic[ThingT]):
    thing: ThingT


@dataclass(frozen=True, slots=True)
class KnownThing(Generic[ThingT]):
    """The same content came before under this key."""

    thing: ThingT


@dataclass(frozen=True, slots=True)
class Place:
    """Of a thing in its list."""

    created_at_us: int
    id: str


async def create_customer(
    pool: Pool, merchant: str, wanted: Customer, idempotency_key: str
) -> Created[Customer] | KnownThing[Customer] | Refused:
    """`wanted` with its new id. Raises OperationalError; under a key asking again is safe."""
    content = (wanted.name, wanted.email, wanted.description)
    fingerprint = _fingerprint(*content, stored_metadata(sorted(wanted.metadata, key=lambda one: one.key)))
    with translated("storing a customer"):
        made = await pool.fetchval(
            _INSERT_CUSTOMER,
            merchant,
            idempotency_key or None,
            fingerprint,
            wanted.id,
            *content,
            stored_metadata(wanted.metadata),
            wanted.created_at_us,
        )
        if made is not None:
            return Created(wanted)
        [known] = await pool.fetch(f"{_CUSTOMER} {_BY_KEY}", merchant, idempotency_key)
    return _reused(known, fingerprint) or KnownThing(_customer(known))


async def create_payment_method(
    pool: Pool, merchant: str, wanted: PaymentMethod, idempotency_key: str
) -> Created[PaymentMethod] | KnownThing[PaymentMethod] | Refused:
    """`wanted` with its new id. Raises OperationalError; under a key asking again is safe."""
    is_ours = wanted.customer_id.startswith(CUSTOMER_PREFIX)
    if is_ours and await find_customer(pool, merchant, wanted.customer_id) is None:
        return Refused(RefusalCode.UNKNOWN_CUSTOMER, "The merchant has no customer of this id.")
    content = (wanted.token, wanted.customer_id, wanted.description)
    fingerprint = _fingerprint(*content, stored_metadata(sorted(wanted.metadata, key=lambda one: one.key)))
    with translated("storing a payment method"):
        made = await pool.fetchval(
            _INSERT_METHOD,
            merchant,
            idempotency_key or None,
            fingerprint,
            wanted.id,
            *content,
            stored_metadata(wanted.metadata),
            wanted.created_at_us,
        )
        if made is not None:
            return Created(wanted)
        [known] = await pool.fetch(f"{_METHOD} {_BY_KEY}", merchant, idempotency_key)
    return _reused(known, fingerprint) or KnownThing(_payment_method(known))


async def find_customer(pool: Pool, merchant: str, customer_id: str) -> Customer | None:
    """Raises OperationalError when Postgres can't answer."""
    with translated("finding a customer"):
        row = await pool.fetchrow(f"{_CUSTOMER} {_BY_ID}", merchant, customer_id)
    return None if row is None else _customer(row)


async def find_payment_method(pool: Pool, merchant: str, method_id: str) -> PaymentMethod | None:
    """None also when it was deleted. Raises OperationalError when Postgres can't answer."""
    with translated("finding a payment method"):
        row = await pool.fetchrow(f"{_METHOD} {_BY_ID} {_STANDING}", merchant, method_id)
    return None if row is None else _payment_method(row)


async def delete_payment_method(pool: Pool, merchant: str, method_id: str, now_us: int) -> bool:
    """Whether there is, or was, such a one. No payment that is sent after this has its token."""
    with translated("deleting a payment method"):
        return await pool.fetchval(_DELETE, merchant, method_id, now_us) is not None


async def list_customers(
    pool: Pool, merchant: str, limit: int, after: Place | None
) -> tuple[list[Customer], Place | None]:
    """Newest first, at most `limit`, and the place after which there are more. Raises OperationalError."""
    rows = await _page(pool, f"{_CUSTOMER} WHERE merchant = $1", merchant, limit, after)
    return [_customer(row) for row in rows[:limit]], _next(rows, limit)


async def list_payment_methods(
    pool: Pool, merchant: str, customer_id: str, limit: int, after: Place | None
) -> tuple[list[PaymentMethod], Place | None]:
    """Of one customer unless `customer_id` is empty; the same otherwise."""
    where = f"WHERE merchant = $1 {_STANDING}"
    values = [customer_id] if customer_id else []
    if customer_id:
        where += " AND customer_id = $3 AND customer_id <> ''"  # what its index is about
    rows = await _page(pool, f"{_METHOD} {where}", merchant, limit, after, *values)
    return [_payment_method(row) for row in rows[:limit]], _next(rows, limit)


async def find_named(
    pool: Pool, customers: Collection[Name], methods: Collection[Name]
) -> tuple[set[Name], dict[Name, Kept]]:
    """Those of them that there are. Raises OperationalError when Postgres can't answer."""
    known: set[Name] = set()
    kept: dict[Name, Kept] = {}
    with translated("finding what payments name"):
        if customers:
            rows = await pool.fetch(_CUSTOMERS_NAMED, *columns_of(sorted(customers)))
            known = {(row["merchant"], row["id"]) for row in rows}
        if methods:
            rows = await pool.fetch(_METHODS_NAMED, *columns_of(sorted(methods)))
            kept = {
                (row["merchant"], row["id"]): Kept(row["token"], row["customer_id"], row["is_deleted"])
                for row in rows
            }
    return known, kept


async def _page(
    pool: Pool, statement: str, merchant: str, limit: int, after: Place | None, *values: str
) -> Sequence[Record]:
    """One more than `limit`, so that it is known whether there are more."""
    place: list[object] = []
    if after is not None:
        place = [after.created_at_us, after.id]
        statement += f" AND (created_at, id) < (${len(values) + 3}, ${len(values) + 4})"
    with translated("listing what is kept"):
        return await pool.fetch(f"{statement} {_NEWEST_FIRST}", merchant, limit + 1, *values, *place)


def _next(rows: Sequence[Record], limit: int) -> Place | None:
    return Place(rows[limit - 1]["created_at"], rows[limit - 1]["id"]) if len(rows) > limit else None


def _fingerprint(*content: str) -> bytes:
    return hashlib.sha256(orjson.dumps(content)).digest()


def _reused(row: Record, fingerprint: bytes) -> Refused | None:
    if row["fingerprint"] == fingerprint:
        return None
    return Refused(
        RefusalCode.IDEMPOTENCY_KEY_REUSED, f"This Idempotency-Key made something else before: {row['id']}."
    )


def _customer(row: Record) -> Customer:
    return Customer(
        id=row["id"],
        name=row["name"],
        email=row["email"],
        description=row["description"],
        metadata=metadata_from(row["metadata"]),
        created_at_us=row["created_at"],
    )


def _payment_method(row: Record) -> PaymentMethod:
    return PaymentMethod(
        id=row["id"],
        token=row["token"],
        customer_id=row["customer_id"],
        description=row["description"],
        metadata=metadata_from(row["metadata"]),
        created_at_us=row["created_at"],
    )
