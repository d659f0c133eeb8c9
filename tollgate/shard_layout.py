"""What lies where in a shard's RocksDB: the one thing that gateway and cdc must agree on.

Column families are all created before a shard is ready. Keys and values are bytes; integers in keys are u64
big-endian, so that iteration is by sequence.
"""

from __future__ import annotations

import struct
from typing import Final

PAYMENTS: Final = "payments"  # merchant/checkout id → Payment
CHANGES: Final = "changes"  # u64 sequence → Change
META: Final = "meta"  # the names below → value
COLUMN_FAMILIES: Final = (PAYMENTS, CHANGES, META)

META_INCARNATION: Final = b"incarnation"  # 16 bytes
META_SHARD: Final = b"shard"  # u64
META_EPOCH: Final = b"epoch"  # u64
META_LAST_SEQUENCE: Final = b"last_sequence"  # u64, in the WriteBatch of the change it numbers
META_ACKNOWLEDGED: Final = b"acknowledged"  # u64, the tailer's only cursor
META_PRUNED: Final = b"pruned"  # u64, changes up to here may be gone
META_MERCHANTS: Final = b"merchants"  # ListMerchantsResponse: the copy of the API-key hashes
# and u64 sequence → u64 committed_at_us, u64 bytes of the log so far, u64 sequence of the mark before
META_MARK_PREFIX: Final = b"mark/"
PAYMENTS_WITNESS_PREFIX: Final = b"\0mark/"  # and u64 sequence → nothing: a mark's trace among the payments
PAYMENTS_BEGIN: Final = b"\1"  # every payment's key is above

WATERMARK_FILE: Final = "watermark"  # beside the database's folder
DATABASE_DIR: Final = "db"

_U64 = struct.Struct(">Q")


def encode_u64(value: int) -> bytes:
    return _U64.pack(value)


def decode_u64(raw: bytes) -> int:
    """Raises struct.error when `raw` is not 8 bytes."""
    (value,) = _U64.unpack(raw)
    return int(value)
