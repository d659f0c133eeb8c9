"""A merchant's payments, newest first, a page at a time.

A page begins after a place, not at an offset: payments that come meanwhile move nobody's pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from processor.storage.database import Pool, translated
from processor.storage.payments import COLUMNS, payment_from
from tollgate.status import NAME, StatusValue
from tollgate.v1.payment_pb2 import Payment

# `amount > 0` is what its index is about. A filter that is not there takes no part in the plan: each
# combination is a statement of its own.
_LIST: Final = f"SELECT {COLUMNS} FROM payments AS p WHERE p.merchant = $1 AND p.amount > 0"  # noqa: S608
_NEWEST_FIRST: Final = "ORDER BY p.created_at DESC, p.checkout_id DESC LIMIT $2"


@dataclass(frozen=True, slots=True)
class Place:
    """Of a payment in the list."""

    created_at_us: int
    checkout_id: str


@dataclass(frozen=True, slots=True)
class Filter:
    """What is None takes part in nothing."""

    status: StatusValue | None = None
    customer_id: str | None = None
    created_from_us: int | None = None
    created_before_us: int | None = None


async def list_payments(
    pool: Pool, merchant: str, wanted: Filter, limit: int, after: Place | None
) -> tuple[list[Payment], Place | None]:
    """At most `limit`, and the place after which there are more. Raises OperationalError."""
    conditions: list[tuple[str, object]] = [
        ("p.status = ${}", NAME[wanted.status] if wanted.status else None),
        ("p.customer_id = ${}", wanted.customer_id),
        ("p.created_at >= ${}", wanted.created_from_us),
        ("p.created_at < ${}", wanted.created_before_us),
    ]
    given = [(condition, value) for condition, value in conditions if value is not None]
    values: list[object] = [value for _condition, value in given]
    clauses = [condition.format(number) for number, (condition, _value) in enumerate(given, 3)]
    if wanted.customer_id is not None:
        clauses.append("p.customer_id <> ''")  # what its index is about
    if after is not None:
        clauses.append(f"(p.created_at, p.checkout_id) < (${len(values) + 3}, ${len(values) + 4})")
        values += [after.created_at_us, after.checkout_id]
    statement = " ".join([_LIST, *(f"AND {clause}" for clause in clauses), _NEWEST_FIRST])
    with translated("listing payments"):
        rows = await pool.fetch(statement, merchant, limit + 1, *values)
    payments = [payment_from(row) for row in rows[:limit]]
    if len(rows) <= limit:
        return payments, None
    return payments, Place(payments[-1].created_at_us, payments[-1].checkout_id)
