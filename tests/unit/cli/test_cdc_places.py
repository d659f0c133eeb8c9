"""Where `tollgate cdc` looks: at the local stack, or at the one shard that the settings name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tollgate.cli.cdc_places import ShardPlace, find_places
from tollgate.errors import ConfigurationError, OperationalError, RejectedInput
from tollgate.local.paths import StackPaths
from tollgate.local.stack_json import StackJson, write_stack_json
from tollgate.ring_file import RingFile, ShardEntry, write_ring_file


@pytest.fixture
def stopped_stack(tmp_path: Path) -> StackPaths:
    """Shards 0 and 2 on the ring, 1 removed; nothing runs."""
    paths = StackPaths(tmp_path)
    write_stack_json(
        paths.stack_json,
        StackJson(
            base_url="http://127.0.0.1:1",
            api_key="key",
            merchant="demo",
            kafka_bootstrap="127.0.0.1:2",
            postgres_dsn="postgresql://",
            psp_simulator_url="http://127.0.0.1:3",
        ),
    )
    shards = [ShardEntry(id=i, name=f"127.0.0.1:{70 + i}", grpc=f"127.0.0.1:{80 + i}") for i in (0, 2)]
    write_ring_file(paths.ring, RingFile(version=4, next_id=3, shards=tuple(shards), retired=(1,)))
    for shard in (0, 1, 2):
        (paths.shard(shard) / "db").mkdir(parents=True)
    (paths.shards / "of another kind" / "db").mkdir(parents=True)
    return paths


def test_every_shard_that_has_a_store_is_known_removed_ones_too(stopped_stack: StackPaths) -> None:
    places = find_places(stopped_stack.data_dir)
    assert places.kafka_bootstrap == "127.0.0.1:2"
    assert places.of(None) == (
        ShardPlace(0, stopped_stack.shard(0), "127.0.0.1:81"),
        ShardPlace(1, stopped_stack.shard(1), None, is_retired=True),
        ShardPlace(2, stopped_stack.shard(2), "127.0.0.1:83"),
    )
    assert [place.shard for place in places.of(2)] == [2]
    with pytest.raises(RejectedInput, match="Known: 0, 1, 2"):
        places.of(5)


def test_the_settings_of_a_cdc_process_will_do_without_a_stack(
    stopped_stack: StackPaths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TOLLGATE_SHARD__DATA_DIR", "/data/shard")
    with pytest.raises(ConfigurationError, match="TOLLGATE_SHARD__ID"):
        find_places(None)
    monkeypatch.setenv("TOLLGATE_SHARD__ID", "9")
    monkeypatch.setenv("TOLLGATE_KAFKA_BOOTSTRAP", "kafka:9092")
    monkeypatch.setenv("TOLLGATE_CDC__OPS", "127.0.0.1:7")
    places = find_places(None)
    assert places.kafka_bootstrap == "kafka:9092"
    assert places.shards == (ShardPlace(9, Path("/data/shard"), "127.0.0.1:7"),)
    assert len(find_places(stopped_stack.data_dir).shards) == 3


def test_without_either_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(OperationalError, match="tollgate up"):
        find_places(tmp_path / "nowhere")
