"""What every store promises (gateway/store/interface.py)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import StoreFailed
from gateway.store.interface import Delete, DeleteRange, Put, Store
from gateway.store.memory import Disk, MemoryStore
from gateway.store.rocks import RocksStore
from tollgate.errors import OperationalError
from tollgate.shard_layout import CHANGES, META, PAYMENTS, encode_u64


class StoreContract(ABC):
    @abstractmethod
    def reopened(self) -> Store:
        """Closes the store and opens it again."""

    def test_an_empty_store_holds_nothing(self, store: Store) -> None:
        assert store.get(PAYMENTS, b"k") is None
        assert store.get_many(PAYMENTS, [b"k", b"l"]) == [None, None]
        assert store.get_many(PAYMENTS, []) == []
        assert store.scan(PAYMENTS, b"", 10) == []

    def test_a_write_is_seen_at_once_in_its_family_only(self, store: Store) -> None:
        store.write([Put(PAYMENTS, b"k", b"v"), Put(META, b"k", b"m")])
        assert store.get(PAYMENTS, b"k") == b"v"
        assert store.get(META, b"k") == b"m"
        assert store.get(CHANGES, b"k") is None

    def test_many_are_given_in_the_order_of_their_keys(self, store: Store) -> None:
        store.write([Put(PAYMENTS, b"a", b"1"), Put(PAYMENTS, b"b", b"2")])
        assert store.get_many(PAYMENTS, [b"b", b"x", b"a", b"b"]) == [b"2", None, b"1", b"2"]

    def test_the_last_of_several_operations_on_a_key_counts(self, store: Store) -> None:
        store.write([Put(META, b"k", b"1"), Delete(META, b"k"), Put(META, b"k", b"2")])
        assert store.get(META, b"k") == b"2"
        store.write([Put(META, b"k", b"3"), Delete(META, b"k")])
        assert store.get(META, b"k") is None

    def test_a_scan_ascends_from_its_start_within_its_limit(self, store: Store) -> None:
        store.write([Put(CHANGES, encode_u64(n), b"%d" % n) for n in (300, 2, 1, 256, 255)])
        assert [value for _, value in store.scan(CHANGES, encode_u64(2), 3)] == [b"2", b"255", b"256"]
        assert store.scan(CHANGES, encode_u64(301), 3) == []

    def test_a_range_is_deleted_up_to_but_not_including_its_end(self, store: Store) -> None:
        store.write([Put(CHANGES, encode_u64(n), b"v") for n in range(1, 8)])
        store.write([DeleteRange(CHANGES, encode_u64(2), encode_u64(6)), Put(CHANGES, encode_u64(3), b"new")])
        assert [key for key, _ in store.scan(CHANGES, b"", 9)] == [encode_u64(n) for n in (1, 3, 6, 7)]

    def test_what_was_flushed_is_there_after_reopening(self, store: Store) -> None:
        store.write([Put(PAYMENTS, b"k", b"v" * 70_000), Put(CHANGES, encode_u64(1), b"")])
        store.write([DeleteRange(CHANGES, encode_u64(0), encode_u64(9))])
        store.flush()
        again = self.reopened()
        assert again.get(PAYMENTS, b"k") == b"v" * 70_000
        assert again.scan(CHANGES, b"", 9) == []

    def test_a_closed_store_fails(self, store: Store) -> None:
        store.close()
        with pytest.raises(StoreFailed):
            store.write([Put(META, b"k", b"v")])
        store.close()


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        self.disk = Disk()
        return MemoryStore(self.disk)

    def reopened(self) -> Store:
        self.disk.lose_unsynced()
        return MemoryStore(self.disk)

    def test_a_power_cut_takes_a_suffix_of_what_was_not_flushed(self, store: Store) -> None:
        store.write([Put(META, b"flushed", b"")])
        store.flush()
        for key in (b"1", b"2", b"3"):
            store.write([Put(META, key, b"")])
        self.disk.lose_unsynced(kept=1)
        assert [key for key, _ in MemoryStore(self.disk).scan(META, b"", 9)] == [b"1", b"flushed"]


class TestRocksStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        self.path = tmp_path / "db"
        self.open = RocksStore(self.path)
        yield self.open
        self.open.close()

    def reopened(self) -> Store:
        self.open.close()
        self.open = RocksStore(self.path)
        return self.open

    def test_a_second_opening_is_refused_while_the_first_lives(self, store: Store) -> None:
        with pytest.raises(OperationalError, match="end the process"):
            RocksStore(self.path)
        assert store.get(META, b"k") is None
