"""Merchants and the hashes of their API keys. A key itself never comes here."""

from __future__ import annotations

from typing import Final

from processor.storage.database import Pool, translated
from tollgate.v1.ledger_pb2 import Merchant

_UPSERT_MERCHANT: Final = "INSERT INTO merchants (id, default_psp) VALUES ($1, $2) ON CONFLICT DO NOTHING"
_UPSERT_KEY: Final = """
INSERT INTO api_keys (key_hash, merchant) VALUES ($1, $2)
ON CONFLICT (key_hash) DO UPDATE SET merchant = excluded.merchant, revoked_at = NULL
"""
_LIST: Final = """
SELECT m.id, m.default_psp,
    ARRAY(SELECT k.key_hash FROM api_keys AS k WHERE k.merchant = m.id AND k.revoked_at IS NULL
          ORDER BY k.created_at, k.key_hash) AS key_hashes
FROM merchants AS m ORDER BY m.id
"""


async def upsert_merchant(pool: Pool, merchant: str, default_psp: str, key_hash: bytes) -> None:
    """The merchant exists and the key opens it. An existing default PSP is left as it is."""
    with translated("storing the merchant"):
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(_UPSERT_MERCHANT, merchant, default_psp)
            await connection.execute(_UPSERT_KEY, key_hash, merchant)


async def list_merchants(pool: Pool) -> list[Merchant]:
    with translated("listing merchants"):
        rows = await pool.fetch(_LIST)
    return [
        Merchant(id=row["id"], default_psp=row["default_psp"], api_key_hashes=row["key_hashes"])
        for row in rows
    ]
