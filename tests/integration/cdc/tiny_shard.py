"""As much of a shard as cdc can see: a real RocksDB primary, its watermark, and the Shard service on a real
port."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from rocksdict import Options, Rdict, WriteBatch

from tollgate.shard_layout import (
    CHANGES,
    COLUMN_FAMILIES,
    DATABASE_DIR,
    META,
    META_ACKNOWLEDGED,
    META_EPOCH,
    META_INCARNATION,
    META_LAST_SEQUENCE,
    META_PRUNED,
    META_SHARD,
    WATERMARK_FILE,
    decode_u64,
    encode_u64,
)
from tollgate.v1 import shard_pb2
from tollgate.v1.change_pb2 import Change
from tollgate.v1.payment_pb2 import Payment
from tollgate.v1.shard_pb2_grpc import ShardServicer, add_ShardServicer_to_server
from tollgate.watermark import Watermark, WatermarkWriter

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class TinyShard(ShardServicer):
    """Opened, closed and opened again by the test; every opening raises the epoch, as a shard's does."""

    def __init__(self, data_dir: Path, shard: int, port: int) -> None:
        self.data_dir = data_dir
        self.shard = shard
        self.grpc = f"127.0.0.1:{port}"
        self.incarnation = b""
        self.epoch = 0
        self.last = 0
        self.applied: list[shard_pb2.StatusUpdate] = []
        self.acknowledgements: list[int] = []
        self.read_from: list[int] = []
        self.largest_apply = 0
        self._lock = threading.Lock()
        self._server: grpc.Server | None = None
        data_dir.mkdir(parents=True, exist_ok=True)

    # The store

    def open(self) -> None:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.create_missing_column_families(True)
        self._db = Rdict(
            str(self.data_dir / DATABASE_DIR),
            options,
            column_families={family: Options(raw_mode=True) for family in COLUMN_FAMILIES},
        )
        self._families = {family: self._db.get_column_family(family) for family in COLUMN_FAMILIES}
        self.incarnation = self._families[META].get(META_INCARNATION) or secrets.token_bytes(16)
        self.epoch = self._number(META_EPOCH) + 1
        self.last = self._number(META_LAST_SEQUENCE)
        meta = {META_INCARNATION: self.incarnation, META_SHARD: encode_u64(self.shard)}
        self._write(META, {**meta, META_EPOCH: encode_u64(self.epoch)})
        self._watermark = WatermarkWriter(self.data_dir / WATERMARK_FILE)
        self.publish()

    def close(self) -> None:
        with self._lock:
            self._watermark.close()
            for family in self._families.values():
                family.close()
            self._families.clear()
            self._db.close()

    def reopen(self) -> None:
        self.close()
        self.open()

    def commit(self, keys: Sequence[str], *, publish: bool = True) -> None:
        """One group commit: changes and their last sequence in one batch, fsync, then the watermark."""
        with self._lock:
            batch = WriteBatch(raw_mode=True)
            changes = self._db.get_column_family_handle(CHANGES)
            for key in keys:
                self.last += 1
                batch.put(encode_u64(self.last), self.change(key, self.last), changes)
            meta = self._db.get_column_family_handle(META)
            batch.put(META_LAST_SEQUENCE, encode_u64(self.last), meta)
            self._db.write(batch)
            self._db.flush_wal(sync=True)
        if publish:
            self.publish()

    def publish(self) -> None:
        self._watermark.publish(Watermark(self.incarnation, self.epoch, self.last))

    def change(self, key: str, sequence: int) -> bytes:
        merchant, _, checkout_id = key.partition("/")
        return Change(
            key=key,
            shard=self.shard,
            incarnation=self.incarnation,
            epoch=self.epoch,
            sequence=sequence,
            committed_at_us=time.time_ns() // 1000,
            traceparent=TRACEPARENT,
            acceptance=Payment(merchant=merchant, checkout_id=checkout_id, amount=sequence),
        ).SerializeToString()

    def flush_memtables(self) -> None:
        """Everything into SST files: the write-ahead log of what was written becomes garbage."""
        for family in self._families.values():
            family.flush()

    def prune(self, through: int) -> None:
        self._families[CHANGES].delete_range(encode_u64(0), encode_u64(through + 1))
        self._write(META, {META_PRUNED: encode_u64(through)})

    def lose_change(self, sequence: int) -> bytes:
        """By hand, which no shard would do."""
        lost: bytes = self._families[CHANGES].get(encode_u64(sequence)) or b""
        self._families[CHANGES].delete(encode_u64(sequence))
        self._db.flush_wal(sync=True)
        return lost

    def give_back(self, sequence: int, change: bytes) -> None:
        self._families[CHANGES].put(encode_u64(sequence), change)
        self._db.flush_wal(sync=True)

    def change_at(self, sequence: int) -> bytes:
        stored = self._families[CHANGES].get(encode_u64(sequence))
        assert isinstance(stored, bytes)
        return stored

    def acknowledge(self, sequence: int) -> None:
        """As if a tailer had said so."""
        with self._lock:
            self._write(META, {META_ACKNOWLEDGED: encode_u64(sequence)})

    def note(self, name: bytes, value: bytes) -> None:
        """Into `meta`."""
        self._write(META, {name: value})

    def acknowledged(self) -> int:
        with self._lock:
            return self._number(META_ACKNOWLEDGED)

    def _number(self, name: bytes) -> int:
        raw = self._families[META].get(name)
        return 0 if raw is None else decode_u64(raw)

    def _write(self, family: str, values: dict[bytes, bytes]) -> None:
        for name, value in values.items():
            self._families[family].put(name, value)
        self._db.flush_wal(sync=True)

    # The service

    def serve(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(4))
        add_ShardServicer_to_server(self, self._server)
        assert self._server.add_insecure_port(self.grpc) != 0
        self._server.start()

    def stop_serving(self) -> None:
        if self._server is not None:
            self._server.stop(None).wait(5)
            self._server = None

    def ApplyStatus(
        self, request: shard_pb2.ApplyStatusRequest, context: Any
    ) -> shard_pb2.ApplyStatusResponse:
        self.largest_apply = max(self.largest_apply, len(request.updates))
        self.applied.extend(request.updates)
        return shard_pb2.ApplyStatusResponse(applied=len(request.updates))

    def AcknowledgeChanges(
        self, request: shard_pb2.AcknowledgeChangesRequest, context: Any
    ) -> shard_pb2.AcknowledgeChangesResponse:
        with self._lock:
            mine = (self.incarnation, self.epoch)
            if (request.incarnation, request.epoch) != mine or request.sequence > self.last:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, "another opening of the store")
            if not self._families:
                context.abort(grpc.StatusCode.UNAVAILABLE, "closed")
            acknowledged = max(self._number(META_ACKNOWLEDGED), request.sequence)
            self._write(META, {META_ACKNOWLEDGED: encode_u64(acknowledged)})
            self.acknowledgements.append(acknowledged)
        return shard_pb2.AcknowledgeChangesResponse(acknowledged=acknowledged)

    def ReadChanges(
        self, request: shard_pb2.ReadChangesRequest, context: Any
    ) -> shard_pb2.ReadChangesResponse:
        self.read_from.append(request.from_sequence)
        changes = []
        for sequence in range(request.from_sequence, request.from_sequence + request.limit):
            value = self._families[CHANGES].get(encode_u64(sequence))
            if value is None:
                break
            changes.append(value)
        return shard_pb2.ReadChangesResponse(
            incarnation=self.incarnation,
            epoch=self.epoch,
            durable_sequence=self.last,
            acknowledged_sequence=self.acknowledged(),
            changes=changes,
        )

    def GetPayment(self, request: shard_pb2.GetPaymentRequest, context: Any) -> shard_pb2.GetPaymentResponse:
        return shard_pb2.GetPaymentResponse()
