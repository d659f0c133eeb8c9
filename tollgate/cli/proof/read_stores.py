"""What the shards' stores hold of payments: read beside the shards, whether they run or are down."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from tollgate.cli.proof.recorder import Recorder
from tollgate.cli.proof.states import state_of_payment
from tollgate.cli.proof.testimony import Kind, Stored
from tollgate.errors import OperationalError
from tollgate.shard_layout import DATABASE_DIR, PAYMENTS, PAYMENTS_BEGIN
from tollgate.v1.payment_pb2 import Payment

_TOLD_EVERY: Final = 10_000


def read_stored(shard: int, data_dir: Path, recorder: Recorder) -> int:
    """Returns how many payments there were. Raises OperationalError when the store can't be read."""
    count = 0
    name = f"payments of shard {shard}"
    for key, raw in stored_payments(data_dir):
        count += 1
        try:
            payment = Payment.FromString(raw)
        except DecodeError:
            recorder.unreadable(key, f"shard {shard} holds bytes that are no payment")
            continue
        recorder.leaked(recorder.leaks.in_payment(raw, payment), f"the store of shard {shard}", key)
        recorder.add(Kind.STORED, key, Stored(shard, state_of_payment(payment)))
        if count % _TOLD_EVERY == 0:
            recorder.progress(name, count, count + _TOLD_EVERY)
    recorder.progress(name, count, count)
    return count


def stored_payments(data_dir: Path) -> Iterator[tuple[str, bytes]]:
    """Key and bytes of each, as a secondary sees them. Raises OperationalError."""
    from rocksdict import AccessType, Options, Rdict

    from cdc.source import secondary_options, translated

    database = data_dir / DATABASE_DIR
    if not (database / "CURRENT").exists():
        raise OperationalError(f"There is no store in {database}. Start the shard once, or name its stack.")
    with tempfile.TemporaryDirectory(prefix="tollgate-secondary-") as scratch:
        with translated(f"opening {database} as a secondary"):
            store = Rdict(
                str(database),
                secondary_options(),
                column_families={family: Options(raw_mode=True) for family in ("default", PAYMENTS)},
                access_type=AccessType.secondary(scratch),
            )
        try:
            with translated(f"reading payments of {database}"):
                store.try_catch_up_with_primary()
                payments = store.get_column_family(PAYMENTS)
                cursor = payments.iter()
                cursor.seek(PAYMENTS_BEGIN)
                while cursor.valid():
                    yield cursor.key().decode(), cursor.value()
                    cursor.next()
                cursor.status()
            payments.close()
        finally:
            store.close()
