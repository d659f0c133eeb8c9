"""`tollgate cdc status`: how far a shard has come, with its cdc process up, halted and down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cdc.shard_log import ShardLog
from gateway.change_log import Mark
from tests.fixtures.waiting import wait_until
from tests.integration.cdc.bench import CdcProcess, running, tiny_shard, wait_acknowledged
from tests.integration.cdc.test_cdc_verify import KEYS, tollgate
from tests.integration.cdc.tiny_shard import TinyShard


def status(shard: TinyShard, bootstrap: str, ops: str) -> tuple[int, dict[str, Any]]:
    told = tollgate(shard, bootstrap, "status", "--json", ops=ops)
    (one,) = json.loads(told.stdout)
    return told.exit_code, one


def test_it_shows_lag_and_cursor_also_with_cdc_and_shard_down(kafka_bootstrap: str, tmp_path: Path) -> None:
    with tiny_shard(tmp_path, shard=37) as shard:
        with running(CdcProcess(shard, kafka_bootstrap, tmp_path / "log")) as cdc:
            shard.commit(KEYS)
            wait_acknowledged(shard)
            code, one = status(shard, kafka_bootstrap, cdc.ops)
            assert (code, one["state"], one["acknowledged"], one["lag"]["records"]) == (0, "caught up", 50, 0)
            assert one["lag"] == {"records": 0, "bytes": 0, "seconds": 0.0}
            assert one["tailer"]["epoch"] == one["epoch"] == 1
            assert one["incarnation"] == shard.incarnation.hex()
        shard.commit(KEYS)
        shard.prune(30)
        weight = sum(len(shard.change_at(sequence)) for sequence in range(51, 101))
        shard.close()
        code, one = status(shard, kafka_bootstrap, cdc.ops)
        assert (code, one["state"], one["pruned"], one["durable"]) == (1, "down", 30, 100)
        assert (one["lag"]["records"], one["lag"]["bytes"]) == (50, weight)
        assert one["lag"]["seconds"] > 0
        shown = tollgate(shard, kafka_bootstrap, "status")
        assert "down" in shown.stdout
        shard.open()


def test_it_says_why_a_tailer_has_halted(kafka_bootstrap: str, tmp_path: Path) -> None:
    with (
        tiny_shard(tmp_path, shard=38) as shard,
        running(CdcProcess(shard, kafka_bootstrap, tmp_path / "log")) as cdc,
    ):
        shard.commit(KEYS[:4], publish=False)
        shard.lose_change(3)
        shard.publish()
        wait_until(
            lambda: "no readable change" in cdc.ready()[1] and cdc.metric("tollgate_cdc_halted") == 1,
            "halted",
        )
        code, one = status(shard, kafka_bootstrap, cdc.ops)
        assert (code, one["state"]) == (1, "halted")
        assert "has no readable change 3" in one["reason"]
        shown = tollgate(shard, kafka_bootstrap, "status", ops=cdc.ops)
        assert "has no readable change 3" in shown.stdout.replace("\n", " ")


def test_a_folder_without_a_store_is_said_to_be_one(kafka_bootstrap: str, tmp_path: Path) -> None:
    shard = TinyShard(tmp_path / "empty", 39, 1)
    code, one = status(shard, kafka_bootstrap, "127.0.0.1:1")
    assert (code, one["state"]) == (1, "unreadable")
    assert "no store" in one["reason"]


def test_the_weight_of_the_backlog_is_known_from_the_marks(tmp_path: Path) -> None:
    with tiny_shard(tmp_path) as shard:
        for _ in range(4):
            shard.commit(KEYS)
        sizes = [len(shard.change_at(sequence)) for sequence in range(1, 201)]
        for sequence in (60, 100, 150):
            mark = Mark(sequence, 0, sum(sizes[:sequence]))
            shard.note(mark.key(), mark.value())
        log = ShardLog(shard.data_dir)
        for after, up_to in ((0, 200), (60, 150), (59, 151), (61, 99), (100, 100), (150, 200), (199, 200)):
            assert log.bytes_between(after, up_to) == sum(sizes[after:up_to]), (after, up_to)
        log.close()
