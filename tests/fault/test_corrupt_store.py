"""Files broken on purpose: the store says why it doesn't open, or it opens with all that was acknowledged.

The image is that of a shard killed under way: tables, two write-ahead logs, a watermark, and a tail that was
never flushed. Each damage is applied to a copy, which is then opened as a start does and read whole.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import aiohttp
import pytest

from gateway.app import EXIT_STORE_FAILED
from gateway.change_log import MARK_BYTES, LogState
from gateway.errors import StoreFailed
from gateway.planner import Acceptance, Acknowledgement, Planner
from gateway.store.folder import open_watermark, prepare_folder
from gateway.store.opening import open_store
from gateway.store.rocks import RocksStore
from tests.fixtures.shard import MERCHANT
from tests.fixtures.shard_process import READY_S, ShardProcess
from tollgate.errors import CorruptionError, OperationalError
from tollgate.shard_layout import CHANGES, DATABASE_DIR, META, PAYMENTS, encode_u64
from tollgate.v1.payment_pb2 import Capture, Payment, Status
from tollgate.watermark import Watermark

pytestmark = pytest.mark.fault

SHARD: Final = 3
# The fixed part of the default run; `make fault-disk` runs many seeds.
SEEDS: Final = range(int(os.environ.get("DISK_FAULT_SEEDS", "1")))
ROUNDS: Final = 6
PER_ROUND: Final = 150


@dataclass(frozen=True)
class Image:
    """A folder as a kill left it, and what had been acknowledged by then."""

    folder: Path
    acknowledged: dict[bytes, bytes]

    @property
    def last(self) -> int:
        return len(self.acknowledged)


class Writer:
    """Commits as the committer does, without a loop: plan, write, flush, publish."""

    def __init__(self, folder: Path) -> None:
        left = prepare_folder(folder)
        self.store = RocksStore(folder / DATABASE_DIR)
        self.identity, self.log = open_store(self.store, SHARD, os.urandom, left)
        self.watermark = open_watermark(folder)
        self.publish()

    def publish(self) -> None:
        self.watermark.publish(Watermark(self.identity.incarnation, self.identity.epoch, self.log.last))

    def commit(self, entries: list[Acceptance], *, flush: bool = True) -> None:
        found = {entry.key: self.store.get(PAYMENTS, entry.key.encode()) for entry in entries}
        plan = Planner(self.identity).plan(entries, found, self.log, 1_700_000_000_000_000)
        self.store.write(plan.operations)
        if flush:
            self.store.flush()
            self.log = plan.log
            self.publish()

    def acknowledge(self, sequence: int) -> None:
        entry = Acknowledgement(self.identity.incarnation, self.identity.epoch, sequence)
        plan = Planner(self.identity).plan([entry], {}, self.log, 1)
        self.store.write(plan.operations)
        self.store.flush()
        self.log = plan.log

    def to_tables(self, *families: str) -> None:
        """Memtables become tables now, as they do by themselves at 16 MiB."""
        for family in families:
            self.store._families[family].flush()


def payment_bytes(random: Random) -> bytes:
    return Payment(
        merchant=MERCHANT,
        status=Status.STATUS_PENDING,
        capture=Capture.CAPTURE_AUTOMATIC,
        description=random.randbytes(1_000).hex(),
    ).SerializeToString()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    random = Random(20261121)
    folder = tmp_path_factory.mktemp("image")
    writer = Writer(folder / "live")
    acknowledged: dict[bytes, bytes] = {}
    for turn in range(ROUNDS):
        for _ in range(PER_ROUND // 10):
            entries = []
            for _ in range(10):
                key, payment = f"{MERCHANT}/order-{len(acknowledged):06}", payment_bytes(random)
                acknowledged[key.encode()] = payment
                entries.append(Acceptance(key, payment, b"", ""))
            writer.commit(entries)
        if turn in (1, 3):  # all of it; then only some, so that two write-ahead logs live on
            writer.to_tables(PAYMENTS, CHANGES, META)
            writer.acknowledge(writer.log.last - 50)
        elif turn == 4:
            writer.to_tables(PAYMENTS)
    assert writer.log.bytes_total > 4 * MARK_BYTES
    writer.commit([Acceptance(f"{MERCHANT}/never-told", payment_bytes(random), b"", "")], flush=False)
    shutil.copytree(folder / "live", folder / "killed", ignore=shutil.ignore_patterns("LOCK"))
    writer.store.close()
    writer.watermark.close()
    shutil.rmtree(folder / "live")
    kinds = {path.suffix for path in (folder / "killed" / DATABASE_DIR).iterdir()}
    assert {".sst", ".log"} <= kinds
    yield Image(folder / "killed", acknowledged)
    shutil.rmtree(folder / "killed")


class Outcome:
    REFUSED = "refused to start"
    WHOLE = "started with everything"
    FAILED = "started, and failed at a read"


def outcome_of(folder: Path, image: Image, said: list[str]) -> str:
    """Starts on `folder` and reads everything. Fails the test when something acknowledged is missing."""
    try:
        left = prepare_folder(folder)
        store = RocksStore(folder / DATABASE_DIR)
    except (CorruptionError, OperationalError) as error:
        said.append(error.message)
        return Outcome.REFUSED
    try:
        with closing(store):
            try:
                _, log = open_store(store, SHARD, os.urandom, left)
            except (CorruptionError, StoreFailed) as error:
                said.append(error.message)
                return Outcome.REFUSED
            check_whole(store, log, image)
    except StoreFailed as error:
        said.append(error.message)
        return Outcome.FAILED
    return Outcome.WHOLE


def check_whole(store: RocksStore, log: LogState, image: Image) -> None:
    assert log.last >= image.last, f"starts at {log.last} and misses payments up to {image.last}"
    for key, payment in image.acknowledged.items():
        stored = store.get(PAYMENTS, key)
        assert stored is not None, f"{key!r} was acknowledged and is missing"
        assert stored.startswith(payment), f"{key!r} was acknowledged and is another"
    for sequence, payment in enumerate(image.acknowledged.values(), 1):
        raw = store.get(CHANGES, encode_u64(sequence))
        assert raw is not None, f"change {sequence} is missing"
        assert raw.endswith(payment), f"change {sequence} is another"


def position(path: Path, random: Random) -> int:
    return random.randrange(max(1, path.stat().st_size))


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def flip(path: Path, random: Random) -> None:
    at = position(path, random)
    raw = path.read_bytes()[at : at + 1] or b"\0"
    overwrite(path, at, bytes([raw[0] ^ (1 << random.randrange(8))]))


def flip_the_end(path: Path, random: Random) -> None:
    at = max(0, path.stat().st_size - 1 - random.randrange(64))
    raw = path.read_bytes()[at : at + 1] or b"\0"
    overwrite(path, at, bytes([raw[0] ^ (1 << random.randrange(8))]))


def zero(path: Path, random: Random) -> None:
    """A sector that came back empty."""
    size = path.stat().st_size
    at = position(path, random) // 512 * 512
    overwrite(path, at, b"\0" * min(512, size - at))


def garble(path: Path, random: Random) -> None:
    size = path.stat().st_size
    at = position(path, random)
    overwrite(path, at, random.randbytes(min(4096, size - at)))


def truncate(path: Path, random: Random) -> None:
    os.truncate(path, position(path, random))


def truncate_the_end(path: Path, random: Random) -> None:
    size = path.stat().st_size
    os.truncate(path, max(0, size - 1 - random.randrange(min(size, 200) or 1)))


def empty(path: Path, _random: Random) -> None:
    os.truncate(path, 0)


def remove(path: Path, _random: Random) -> None:
    path.unlink()


DAMAGES: Final = (flip, flip_the_end, zero, garble, truncate, truncate_the_end, empty, remove)
FILES: Final = {
    "table": "db/*.sst",
    "old log": "db/*.log",
    "new log": "db/*.log",
    "manifest": "db/MANIFEST-*",
    "current": "db/CURRENT",
    "options": "db/OPTIONS-*",
    "identity": "db/IDENTITY",
    "watermark": "watermark",
}


def victim(folder: Path, kind: str, random: Random) -> Path:
    found = sorted(path for path in folder.glob(FILES[kind]) if path.stat().st_size)
    assert found, kind
    return {"old log": found[0], "new log": found[-1]}.get(kind) or random.choice(found)


def copied(image: Image, tmp_path: Path) -> Path:
    return Path(shutil.copytree(image.folder, tmp_path / "shard"))


def test_the_image_itself_starts_with_everything(image: Image, tmp_path: Path) -> None:
    assert outcome_of(copied(image, tmp_path), image, []) == Outcome.WHOLE


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("kind", FILES)
def test_a_broken_file_is_refused_or_harmless(
    image: Image, tmp_path: Path, kind: str, damage: Callable[[Path, Random], None], seed: int
) -> None:
    random = Random(f"{kind} {damage.__name__} {seed}")
    folder = copied(image, tmp_path)
    path = victim(folder, kind, random)
    damage(path, random)
    said: list[str] = []
    outcome = outcome_of(folder, image, said)
    if outcome != Outcome.WHOLE:
        assert "Operator action" in said[0]


def settle(folder: Path) -> None:
    """Everything into as few tables as there may be: a compaction under way would mend what a test breaks."""
    store = RocksStore(folder / DATABASE_DIR)
    for family in store._families.values():
        family.compact_range(b"", b"\xff")
    store.close()


def overwrite_tables(folder: Path) -> None:
    for path in folder.glob("db/*.sst"):
        size = path.stat().st_size
        overwrite(path, size // 4, Random(1).randbytes(size // 2))


async def test_a_block_that_is_found_damaged_while_running_is_a_failure_not_an_answer(
    image: Image, tmp_path: Path
) -> None:
    """The files are whole at the start, which reads little of them; then their data is overwritten."""
    shard = ShardProcess(copied(image, tmp_path))
    settle(shard.folder)
    process = shard.start(TOLLGATE_WATCHDOG__LINGER_S="0.5")
    try:
        async with aiohttp.ClientSession() as session:
            await shard.ready(session)
            overwrite_tables(shard.folder)
            status = 200
            for key in reversed(image.acknowledged):  # retention has read the first of them
                checkout_id = key.decode().partition("/")[2]
                status, payment = await shard.get(session, checkout_id)
                if status != 200:
                    break
                assert payment["description"] in image.acknowledged[key].decode(errors="replace")
            assert status == 503
            async with session.get(f"{shard.url}/readyz") as response:
                assert response.status == 503
                assert "block checksum mismatch" in (await response.json())["detail"]
            assert await asyncio.to_thread(process.wait, READY_S) == EXIT_STORE_FAILED
    finally:
        if process.poll() is None:
            shard.kill()
