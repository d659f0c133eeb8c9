"""A real cdc process between a real RocksDB primary and a real Kafka."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

import pytest

from cdc.home import Home
from tests.fixtures.waiting import wait_until
from tests.integration.cdc.bench import (
    CdcProcess,
    assert_complete,
    running,
    shipped,
    tiny_shard,
    wait_acknowledged,
)
from tests.integration.cdc.tiny_shard import TRACEPARENT, TinyShard

KEYS = [f"acme/checkout-{number:04}" for number in range(50)]


def test_every_change_arrives_in_order_and_untouched(kafka_bootstrap: str, tmp_path: Path) -> None:
    with tiny_shard(tmp_path, shard=3) as shard:
        with running(CdcProcess(shard, kafka_bootstrap, tmp_path / "log")) as cdc:
            for _ in range(20):
                shard.commit(KEYS)
            wait_acknowledged(shard)
            assert cdc.ready() == (True, "")
            assert cdc.metric("tollgate_cdc_delivered_total") == 1000
            assert cdc.terminate() == 0
        records = shipped(kafka_bootstrap, shard.incarnation)
        assert_complete(records, 1000)
        assert len(records) == 1000
        assert all(
            record.value == shard._families["changes"].get(record.sequence.to_bytes(8)) for record in records
        )
        assert {record.partition for record in records} == {9, 10, 11}, "a shard keeps to three"
        assert all(record.partition == Home(3, 12).of(record.key.encode()) for record in records)
        assert records[0].headers == {
            "shard": b"3",
            "incarnation": shard.incarnation.hex().encode(),
            "epoch": b"1",
            "seq": b"%d" % records[0].sequence,
            "traceparent": TRACEPARENT.encode(),
        }


def test_nothing_beyond_the_watermark_is_shipped(kafka_bootstrap: str, tmp_path: Path) -> None:
    with tiny_shard(tmp_path) as shard, running(CdcProcess(shard, kafka_bootstrap, tmp_path / "log")):
        shard.commit(KEYS[:2])
        wait_acknowledged(shard)
        shard.commit(KEYS[:3], publish=False)
        shard.flush_memtables()
        shard.last -= 3  # the watermark moves by one only
        shard.last += 1
        shard.publish()
        wait_acknowledged(shard)
        assert {record.sequence for record in shipped(kafka_bootstrap, shard.incarnation)} == {1, 2, 3}


def test_it_starts_before_the_shard_and_goes_on_when_the_shard_is_there(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    with tiny_shard(tmp_path) as shard:
        home, away = shard.data_dir, tmp_path / "not yet"
        shard.commit(KEYS)
        shard.data_dir = away
        with running(CdcProcess(shard, kafka_bootstrap, tmp_path / "log")) as cdc:
            wait_until(lambda: "not been opened" in cdc.ready()[1], "unready without a store")
            assert not (away / "db").exists(), "a secondary must not make the primary's folder"
            away.symlink_to(home)
            wait_acknowledged(shard)
            assert cdc.ready() == (True, "")
        shard.data_dir = home


def test_a_new_epoch_is_read_from_the_shards_own_cursor(kafka_bootstrap: str, tmp_path: Path) -> None:
    with tiny_shard(tmp_path) as shard, running(CdcProcess(shard, kafka_bootstrap, tmp_path / "log")):
        for _ in range(3):
            shard.commit(KEYS)
            wait_acknowledged(shard)
            shard.reopen()
        shard.commit(KEYS)
        wait_acknowledged(shard)
        records = shipped(kafka_bootstrap, shard.incarnation)
        assert_complete(records, 200)
        assert {record.epoch for record in records} == {1, 2, 3, 4}


def test_flushed_memtables_and_pruned_changes_leave_no_gap(kafka_bootstrap: str, tmp_path: Path) -> None:
    with tiny_shard(tmp_path) as shard, running(CdcProcess(shard, kafka_bootstrap, tmp_path / "log")) as cdc:
        for turn in range(1, 21):
            shard.commit(KEYS)
            if turn % 3 == 0:
                shard.flush_memtables()
            if turn % 5 == 0:
                wait_acknowledged(shard)
                shard.prune(shard.acknowledged())
        wait_acknowledged(shard)
        assert_complete(shipped(kafka_bootstrap, shard.incarnation), 1000)
        assert cdc.metric("tollgate_cdc_halted") == 0


def test_what_was_written_flushed_compacted_and_purged_while_the_process_stood_still_is_shipped(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    with tiny_shard(tmp_path) as shard, running(CdcProcess(shard, kafka_bootstrap, tmp_path / "log")) as cdc:
        shard.commit(KEYS)
        wait_acknowledged(shard)
        assert cdc.process is not None
        cdc.process.send_signal(signal.SIGSTOP)
        unread = set((shard.data_dir / "db").glob("*.log"))
        for _ in range(5):
            shard.commit(KEYS)
            shard.flush_memtables()
        assert unread.isdisjoint((shard.data_dir / "db").glob("*.log"))
        cdc.process.send_signal(signal.SIGCONT)
        wait_acknowledged(shard)
        assert_complete(shipped(kafka_bootstrap, shard.incarnation), 300)
        assert cdc.metric("tollgate_cdc_asked_the_shard_total") == 0


def test_a_replaced_store_is_shipped_from_its_own_beginning(kafka_bootstrap: str, tmp_path: Path) -> None:
    with tiny_shard(tmp_path) as shard:
        with running(CdcProcess(shard, kafka_bootstrap, tmp_path / "log")):
            shard.commit(KEYS)
            wait_acknowledged(shard)
            first = shard.incarnation
            shard.close()
            shard.data_dir.rename(tmp_path / "away")
            shard.data_dir.mkdir()
            shard.open()
            assert shard.incarnation != first
            shard.commit(KEYS[:7])
            wait_acknowledged(shard)
        assert_complete(shipped(kafka_bootstrap, first), 50)
        assert_complete(shipped(kafka_bootstrap, shard.incarnation), 7)


@pytest.mark.fault
def test_a_change_deleted_by_hand_halts_loudly_until_it_is_back_and_nothing_after_it_is_shipped(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    with tiny_shard(tmp_path) as shard, running(CdcProcess(shard, kafka_bootstrap, tmp_path / "log")) as cdc:
        shard.commit(KEYS[:5])
        wait_acknowledged(shard)
        shard.commit(KEYS[:5], publish=False)
        lost = shard.lose_change(8)
        shard.publish()
        wait_until(lambda: cdc.metric("tollgate_cdc_halted") == 1, "halted")
        ready, reason = cdc.ready()
        assert not ready
        assert "has no readable change 8" in reason
        assert "Operator action" in reason
        assert cdc.said("tailer_halted")
        assert shard.read_from[-1] == 8
        assert {record.sequence for record in shipped(kafka_bootstrap, shard.incarnation)} == set(range(1, 8))
        wait_until(lambda: shard.acknowledged() == 7, "what came before the gap acknowledged")
        shard.give_back(8, lost)
        wait_acknowledged(shard)
        wait_until(lambda: cdc.metric("tollgate_cdc_halted") == 0, "the alarm is over")
        assert cdc.ready() == (True, "")
        assert_complete(shipped(kafka_bootstrap, shard.incarnation), 10)


@pytest.mark.fault
def test_a_killed_process_repeats_but_never_drops(kafka_bootstrap: str, tmp_path: Path) -> None:
    settings = {"TOLLGATE_CDC__BATCH_RECORDS_MAX": "37"}
    with tiny_shard(tmp_path) as shard:
        for _ in range(200):
            shard.commit(KEYS)
        for rest in (9000, 6000, 3000, 1000):
            with running(CdcProcess(shard, kafka_bootstrap, tmp_path / "log", settings)):
                wait_until(partial(_left_at_most, shard, rest), "in mid-run")
        with running(CdcProcess(shard, kafka_bootstrap, tmp_path / "log")) as cdc:
            wait_until(lambda: cdc.ready()[0], "ready")
            wait_acknowledged(shard)
            assert cdc.terminate() == 0
        assert_complete(shipped(kafka_bootstrap, shard.incarnation), 10_000)


def _left_at_most(shard: TinyShard, count: int) -> bool:
    return shard.last - shard.acknowledged() <= count


def test_the_acknowledgement_waits_for_a_shard_that_is_down(kafka_bootstrap: str, tmp_path: Path) -> None:
    with tiny_shard(tmp_path) as shard, running(CdcProcess(shard, kafka_bootstrap, tmp_path / "log")) as cdc:
        shard.stop_serving()
        shard.commit(KEYS)
        wait_until(lambda: cdc.ready()[0] and cdc.metric("tollgate_cdc_delivered_total") == 50, "delivered")
        assert shard.acknowledged() == 0
        shard.serve()
        wait_acknowledged(shard)
