"""The locks of payments: whoever decides on one holds its row, and sees it as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from processor.operation import Claim
from processor.storage.database import Connection, columns_of
from processor.storage.payments import ROW_COLUMNS, locked_payments
from tollgate.v1.payment_pb2 import Payment

# First the payments, then the operations, as everywhere: whoever holds an operation waits for no payment.
_LOCK_PAYMENTS: Final = f"""
SELECT {ROW_COLUMNS}
FROM unnest($1::text[], $2::text[]) AS c (merchant, checkout_id)
JOIN payments AS p ON p.merchant = c.merchant AND p.checkout_id = c.checkout_id
ORDER BY p.merchant, p.checkout_id
FOR UPDATE OF p
"""  # noqa: S608

# A version is one content for ever: who has claimed it has it already.
_LOCK_VERSIONS: Final = """
SELECT p.merchant, p.checkout_id, p.version, p.operation_count
FROM unnest($1::text[], $2::text[]) AS c (merchant, checkout_id)
JOIN payments AS p ON p.merchant = c.merchant AND p.checkout_id = c.checkout_id
ORDER BY p.merchant, p.checkout_id
FOR UPDATE OF p
"""


async def lock_payments(
    connection: Connection, keys: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Payment]:
    """Those that there are, by merchant and checkout id."""
    rows = await connection.fetch(_LOCK_PAYMENTS, *columns_of(keys))
    return {
        (payment.merchant, payment.checkout_id): payment
        for payment in await locked_payments(connection, rows)
    }


async def lock_claimed(connection: Connection, claims: Sequence[Claim]) -> dict[tuple[str, str], Payment]:
    """The same of claimed operations, and read again only where they may have changed since the claim."""
    rows = await connection.fetch(_LOCK_VERSIONS, *columns_of([claimed.key[:2] for claimed in claims]))
    versions = {
        (row["merchant"], row["checkout_id"]): row["version"] for row in rows if not row["operation_count"]
    }
    payments: dict[tuple[str, str], Payment] = {}
    for claimed in claims:
        if claimed.is_as_stored and versions.get(claimed.key[:2]) == claimed.payment.version:
            payments[claimed.key[:2]] = _copied(claimed.payment)
    changed = [claimed.key[:2] for claimed in claims if claimed.key[:2] not in payments]
    return payments | (await lock_payments(connection, changed) if changed else {})


def _copied(payment: Payment) -> Payment:
    """A decision may write into what it is handed."""
    copy = Payment()
    copy.CopyFrom(payment)
    return copy
