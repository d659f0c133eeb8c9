"""`tollgate cdc replay`: the same records once more, out of a real store into a real Kafka."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cdc.replay import Span, replay, span_of
from cdc.shard_log import LogState
from cdc.tailer import Identity
from tests.fixtures.change_log import FakeLog
from tests.fixtures.free_port import free_port
from tests.integration.cdc.bench import CdcProcess, running, shipped, tiny_shard, wait_acknowledged
from tests.integration.cdc.test_cdc_verify import KEYS, tollgate, verified
from tollgate.errors import OperationalError, RejectedInput


def test_a_replay_repeats_every_record_as_it_was_and_moves_no_cursor(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    with tiny_shard(tmp_path, shard=35) as shard:
        with running(CdcProcess(shard, kafka_bootstrap, tmp_path / "log")):
            for _ in range(4):
                shard.commit(KEYS)
            wait_acknowledged(shard)
        before = shipped(kafka_bootstrap, shard.incarnation)
        shard.prune(20)
        shard.commit(KEYS)  # durable, not delivered: no part of a replay
        told = tollgate(shard, kafka_bootstrap, "replay")
        assert told.exit_code == 0, told.stderr
        assert "180 changes" in told.stdout
        once = {record.sequence: record for record in before}
        again = shipped(kafka_bootstrap, shard.incarnation)
        assert sorted(record.sequence for record in again) == sorted([*range(1, 201), *range(21, 201)])
        assert all(record == once[record.sequence] for record in again)
        assert shard.acknowledged() == 200

        told = tollgate(shard, kafka_bootstrap, "replay", "--from", "100", "--to", "109")
        assert "10 changes" in told.stdout
        (verdict,) = verified(kafka_bootstrap, shard).shards
        assert verdict.ok
        assert verdict.tally.repeats == 190


def test_a_replay_beside_a_tailer_that_ships_on_leaves_first_occurrences_in_order(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    with (
        tiny_shard(tmp_path, shard=36) as shard,
        running(CdcProcess(shard, kafka_bootstrap, tmp_path / "log")),
    ):
        for _ in range(20):
            shard.commit(KEYS)
        wait_acknowledged(shard)
        with ThreadPoolExecutor(1) as aside:
            replaying = aside.submit(tollgate, shard, kafka_bootstrap, "replay")
            for _ in range(40):
                shard.commit(KEYS)
                if replaying.done():
                    break
            assert replaying.result().exit_code == 0
        shard.commit(KEYS)
        wait_acknowledged(shard)
        (verdict,) = verified(kafka_bootstrap, shard).shards
        assert verdict.ok
        assert verdict.tally.compared == shard.last > 1000
        assert verdict.tally.repeats >= 1000


STATE = LogState(
    shard=4, identity=Identity(b"s" * 16, 1), acknowledged=50, pruned=10, last=62, watermark=None
)


@pytest.mark.parametrize(
    ("first", "last", "problem"),
    [
        (10, 20, "pruned"),
        (11, 51, "not durable"),
        (30, 29, "no change from 30 to 29"),
        (60, None, "no change from 60 to 50"),
    ],
)
def test_a_span_that_can_not_be_shipped_is_refused_with_the_one_that_can(
    first: int | None, last: int | None, problem: str
) -> None:
    with pytest.raises(RejectedInput, match=f"{problem}.*11 to 50"):
        span_of(STATE, first, last)


def test_what_the_tailer_has_still_to_deliver_is_not_replayed() -> None:
    log = FakeLog()
    log.add(20)
    log.acknowledged = 12
    with pytest.raises(RejectedInput, match="not delivered yet"):
        span_of(log.look(), 1, 13)
    assert span_of(log.look(), None, None) == Span(1, 12)


def test_nothing_kept_is_nothing_to_do_unless_something_was_asked_for() -> None:
    empty = STATE._replace(pruned=50)
    assert span_of(empty, None, None).size == 0
    with pytest.raises(RejectedInput, match="nothing to replay"):
        span_of(empty, 40, 50)


def test_a_change_that_is_pruned_under_it_ends_a_replay_and_is_said(kafka_bootstrap: str) -> None:
    log = FakeLog(store=b"pruned under it.")
    log.add(30)
    del log.changes[21]
    config: dict[str, str | int | float | bool] = {
        "bootstrap.servers": kafka_bootstrap,
        "enable.idempotence": True,
        "log_level": 2,
    }
    with pytest.raises(OperationalError, match="Of 30, 20 were delivered"):
        replay(log, Span(1, 30), config)


@pytest.mark.parametrize("knows_the_topic", [True, False])
def test_a_replay_without_kafka_ends_and_says_so(
    monkeypatch: pytest.MonkeyPatch, knows_the_topic: bool
) -> None:
    if knows_the_topic:
        monkeypatch.setattr("cdc.replay._Replay._partitions", lambda _: 12)
    log = FakeLog()
    log.add(3)
    config: dict[str, str | int | float | bool] = {
        "bootstrap.servers": f"127.0.0.1:{free_port()}",
        "message.timeout.ms": 0,
        "log_level": 2,
    }
    why = "confirmed nothing" if knows_the_topic else "metadata"
    with pytest.raises(OperationalError, match=f"stopped: .*{why}.*Of 3, 0 were delivered"):
        replay(log, Span(1, 3), config, silence_s_max=0.3)
