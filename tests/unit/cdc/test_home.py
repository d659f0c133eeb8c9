"""Where changes are at home: a key in one partition, a shard in few, all shards in all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cdc.home import PARTITIONS_A_SHARD, Home
from tollgate.topics import SHARDS_MAX, topic_specs


@given(st.integers(0, SHARDS_MAX - 1), st.integers(1, 64), st.binary(max_size=200))
def test_a_key_has_one_home_of_the_few_that_its_shard_has(shard: int, partitions: int, key: bytes) -> None:
    home = Home(shard, partitions)
    assert len(set(home.partitions)) == len(home.partitions) == min(PARTITIONS_A_SHARD, partitions)
    assert home.of(key) in home.partitions
    assert 0 <= home.of(key) < partitions
    assert Home(shard, partitions).of(key) == home.of(key)


def test_enough_shards_use_every_partition_and_each_as_much() -> None:
    specs = [spec for embedded in (True, False) for spec in topic_specs(embedded=embedded)]
    for partitions in {spec.partitions for spec in specs}:
        used = [one for shard in range(partitions) for one in Home(shard, partitions).partitions]
        assert {used.count(one) for one in range(partitions)} == {min(PARTITIONS_A_SHARD, partitions)}


def test_each_partition_of_a_shard_gets_its_share_of_the_keys() -> None:
    home = Home(2, 12)
    counts = [0] * 12
    for number in range(3_000):
        counts[home.of(b"acme/checkout-%06d" % number)] += 1
    assert [number for number, count in enumerate(counts) if count] == [6, 7, 8]
    assert min(count for count in counts if count) > 900
