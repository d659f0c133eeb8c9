"""`tollgate cdc verify` on a real store and a real Kafka: clean after a real tailer, and red for each thing
that is broken in Kafka by hand."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner, Result

from cdc.change_topic import KafkaChangeTopic
from cdc.comparison import expected_headers
from cdc.home import Home
from cdc.shard_log import ShardLog
from cdc.verification import Verification, verify
from tests.fixtures.free_port import free_port
from tests.integration.cdc.bench import CdcProcess, running, tiny_shard, wait_acknowledged
from tests.integration.cdc.tiny_shard import TinyShard
from tollgate.cli.main import build_app
from tollgate.errors import OperationalError
from tollgate.topics import CHANGES
from tollgate.v1.change_pb2 import Change

KEYS = [f"acme/checkout-{number:04}" for number in range(50)]


def verified(kafka_bootstrap: str, *shards: TinyShard) -> Verification:
    logs = [ShardLog(shard.data_dir) for shard in shards]
    try:
        return verify(logs, KafkaChangeTopic(kafka_bootstrap))
    finally:
        for log in logs:
            log.close()


def environment_of(shard: TinyShard, bootstrap: str, ops: str = "127.0.0.1:1") -> dict[str, str]:
    """What a cdc process beside the shard is told."""
    return {
        **os.environ,
        "TOLLGATE_SHARD__ID": str(shard.shard),
        "TOLLGATE_SHARD__DATA_DIR": str(shard.data_dir),
        "TOLLGATE_KAFKA_BOOTSTRAP": bootstrap,
        "TOLLGATE_CDC__OPS": ops,
    }


def tollgate(shard: TinyShard, bootstrap: str, *arguments: str, ops: str = "127.0.0.1:1") -> Result:
    """`tollgate cdc` with these arguments, in this process."""
    told = CliRunner().invoke(
        build_app("cdc"), ["cdc", *arguments], env=environment_of(shard, bootstrap, ops)
    )
    assert told.exception is None or isinstance(told.exception, SystemExit), told.exception
    return told


def produce(bootstrap: str, changes: list[Change]) -> None:
    """As the tailer would, one after the other."""
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 2})
    for change in changes:
        key = change.key.encode()
        producer.produce(
            CHANGES,
            key=key,
            partition=Home(change.shard, 12).of(key),
            value=change.SerializeToString(),
            headers=list(expected_headers(change)),
        )
    assert producer.flush(20) == 0


def stored(shard: TinyShard, sequence: int) -> Change:
    return Change.FromString(shard.change_at(sequence))


def test_what_a_real_tailer_ships_is_clean_also_with_the_shard_down_and_pruned(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    with tiny_shard(tmp_path, shard=31) as shard, tiny_shard(tmp_path, shard=32) as other:
        for one in (shard, other):
            with running(CdcProcess(one, kafka_bootstrap, tmp_path / f"log-{one.shard}")):
                for turn in range(6):
                    one.commit(KEYS)
                    if turn == 3:
                        one.flush_memtables()
                        one.reopen()
                wait_acknowledged(one)
        found = verified(kafka_bootstrap, shard, other)
        assert [(v.ok, v.tally.compared, v.tally.unshipped) for v in found.shards] == [(True, 300, 0)] * 2

        shard.prune(120)
        shard.commit(KEYS)
        shard.close()
        (verdict,) = verified(kafka_bootstrap, shard).shards
        assert verdict.ok
        assert (verdict.tally.compared, verdict.tally.below_floor, verdict.tally.unshipped) == (180, 120, 50)
        shard.open()


def test_every_kind_of_damage_is_found_and_named(kafka_bootstrap: str, tmp_path: Path) -> None:
    with tiny_shard(tmp_path, shard=33) as shard:
        shard.commit([f"acme/only-{number:02}" for number in range(20)])
        shard.commit(["acme/ordered"] * 3)
        changes = [stored(shard, sequence) for sequence in range(1, 24)]
        altered = Change.FromString(changes[4].SerializeToString())
        altered.acceptance.amount += 1
        ahead = Change.FromString(changes[0].SerializeToString())
        ahead.sequence = 99
        produce(kafka_bootstrap, [*changes[:4], altered, *changes[5:9], *changes[10:21]])
        produce(kafka_bootstrap, [changes[22], changes[21], changes[3], ahead])
        shard.acknowledge(23)
        (verdict,) = verified(kafka_bootstrap, shard).shards
        assert {(f.problem, f.sequence, f.key) for f in verdict.tally.findings} == {
            ("different", 5, "acme/only-04"),
            ("missing", 10, "acme/only-09"),
            ("out of order", 22, "acme/ordered"),
            ("unexpected", 99, "acme/only-00"),
        }
        assert verdict.tally.repeats == 1

        told = tollgate(shard, kafka_bootstrap, "verify", "--json")
        assert told.exit_code == 1, told.stderr
        report: dict[str, Any] = json.loads(told.stdout)
        assert not report["ok"]
        assert report["shards"][0]["problems"] == {
            "different": 1,
            "missing": 1,
            "out of order": 1,
            "unexpected": 1,
        }
        shown = tollgate(shard, kafka_bootstrap, "verify")
        assert shown.exit_code == 1
        assert "acme/only-09" in shown.stdout


def test_it_says_by_its_exit_code_whether_it_could_check(kafka_bootstrap: str, tmp_path: Path) -> None:
    with tiny_shard(tmp_path, shard=34) as shard:
        shard.commit(KEYS)
        lagging = tollgate(shard, kafka_bootstrap, "verify")
        assert lagging.exit_code == 0, lagging.stderr
        waited = tollgate(shard, kafka_bootstrap, "verify", "--wait", "0.1")
        assert waited.exit_code == 2
        assert "shard 34 by 50" in waited.stderr
        unknown = tollgate(shard, kafka_bootstrap, "verify", "--shard", "35")
        assert unknown.exit_code == 2
        assert "Known: 34" in unknown.stderr
    with pytest.raises(OperationalError, match="TOLLGATE_KAFKA_BOOTSTRAP"):
        KafkaChangeTopic(f"127.0.0.1:{free_port()}", ask_s=0.5).extents()
    away = tollgate(shard, kafka_bootstrap, "verify", "--data-dir", str(tmp_path / "nowhere"))
    assert away.exit_code == 2
    assert "tollgate up" in away.stderr
