"""A log beside the topic: exactly what was broken is found, and nothing that is allowed."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.change_topic import Extent
from cdc.comparison import expected_headers
from cdc.home import Home
from cdc.tailer import Identity
from cdc.verification import Verification, verify, wait_until_shipped
from tests.fixtures.change_log import PARTITIONS, FakeLog, FakeTopic, made_change
from tollgate.errors import OperationalError

HOME = Home(1, PARTITIONS)  # of the shard that the log is of


def both(count: int) -> tuple[FakeLog, FakeTopic]:
    log, topic = FakeLog(), FakeTopic()
    topic.ship_all(log.add(count))
    return log, topic


def problems(verification: Verification) -> list[tuple[str, int]]:
    return [(f.problem, f.sequence) for shard in verification.shards for f in shard.tally.findings]


def test_what_was_shipped_once_and_in_order_has_no_finding() -> None:
    log, topic = both(100)
    found = verify([log], topic)
    assert found.ok
    tally = found.shards[0].tally
    assert (tally.compared, tally.records, tally.repeats, tally.unshipped) == (100, 100, 0, 0)


def test_a_repeat_is_counted_and_allowed_wherever_it_comes() -> None:
    log, topic = both(50)
    for sequence in (7, 3, 3, 50):
        topic.ship(made_change(sequence))
    found = verify([log], topic)
    assert found.ok
    assert found.shards[0].tally.repeats == 4


def test_a_record_that_is_not_there_is_missing_under_its_id() -> None:
    log, topic = FakeLog(), FakeTopic()
    topic.ship_all([change for change in log.add(30) if change.sequence not in (4, 30)])
    found = verify([log], topic)
    assert problems(found) == [("missing", 4), ("missing", 30)]
    assert found.shards[0].tally.findings[0].key == "acme/checkout-00004"


@pytest.mark.parametrize("part", ["key", "value", "header"])
def test_an_altered_key_value_or_header_is_different(part: str) -> None:
    log, topic = FakeLog(), FakeTopic()
    changes = log.add(9)
    topic.ship_all(changes[:4])
    match part:
        case "key":
            topic.ship(changes[4], key=b"acme/another")
        case "value":
            topic.ship(changes[4], value=changes[4].SerializeToString() + b"\x38\x01")
        case _:
            topic.ship(changes[4], headers=(*expected_headers(changes[4])[:4], ("traceparent", b"")))
    topic.ship_all(changes[5:])
    found = verify([log], topic)
    assert problems(found) == [("different", 5)]
    assert part in found.shards[0].tally.findings[0].detail


def test_a_first_occurrence_behind_a_later_one_is_out_of_order() -> None:
    log, topic = FakeLog(), FakeTopic()
    one, two, three = log.add(3, keys=["acme/same-key"] * 3)
    topic.ship_all([one, three, two, three])
    assert problems(verify([log], topic)) == [("out of order", 2)]


def test_partitions_have_no_order_among_themselves() -> None:
    log, topic = FakeLog(), FakeTopic()
    changes = log.add(40)
    topic.ship_all(sorted(changes, key=lambda c: (-HOME.of(c.key.encode()), c.sequence)))
    assert verify([log], topic).ok


def test_a_key_in_two_partitions_has_lost_its_order() -> None:
    log, topic = FakeLog(), FakeTopic()
    (change,) = log.add(1)
    elsewhere = (HOME.of(change.key.encode()) + 1) % PARTITIONS
    topic.ship(change, partition=elsewhere)
    assert problems(verify([log], topic)) == [("misplaced", 1)]


def test_what_is_above_the_acknowledged_sequence_is_lag_shipped_or_not() -> None:
    log, topic = both(10)
    log.add(10)
    log.acknowledged = 8  # 9 and 10 are there already, 11 to 20 are on their way
    found = verify([log], topic)
    assert found.ok
    assert found.shards[0].tally.unshipped == 10
    assert found.shards[0].tally.compared == 8


def test_a_change_beyond_what_is_durable_is_unexpected() -> None:
    log, topic = both(10)
    topic.ship(made_change(11))
    assert problems(verify([log], topic)) == [("unexpected", 11)]


def test_a_record_of_another_opening_that_the_log_has_not_is_a_lost_tail() -> None:
    """An earlier one, or one of the folder that an old copy took the place of: its epoch may be higher."""
    log, topic = both(10)
    topic.ship(made_change(10, epoch=2))
    topic.ship(made_change(11, epoch=2))
    topic.ship(made_change(9, epoch=7))
    assert sorted(problems(verify([log], topic))) == [("lost tail", 9), ("lost tail", 10), ("lost tail", 11)]


def test_a_record_of_this_opening_under_an_older_change_is_unexpected() -> None:
    log, topic = both(10)
    log.epoch = 4
    topic.ship(made_change(9, epoch=4))
    assert problems(verify([log], topic)) == [("unexpected", 9)]


def test_changes_of_earlier_openings_belong_to_the_log() -> None:
    log, topic = FakeLog(epoch=1), FakeTopic()
    topic.ship_all(log.add(5))
    log.epoch = 2
    topic.ship_all(log.add(5))
    log.epoch = 3
    assert verify([log], topic).ok


def test_records_of_other_stores_and_shards_are_counted_and_left_alone() -> None:
    log, topic = both(5)
    topic.ship(made_change(1, store=b"o" * 16))
    topic.ship(made_change(1), headers=())
    other = FakeLog(shard=2, store=b"t" * 16)
    topic.ship_all(other.add(7))
    found = verify([log, other], topic)
    assert found.ok
    assert [shard.tally.records for shard in found.shards] == [5, 7]
    assert (found.records, found.foreign) == (14, 2)


def test_a_record_of_the_store_without_its_sequence_is_unexpected() -> None:
    log, topic = both(2)
    topic.ship(made_change(2), headers=expected_headers(made_change(2))[:2])
    assert problems(verify([log], topic)) == [("unexpected", 0)]


def test_what_the_shard_has_pruned_is_counted_and_not_compared() -> None:
    log, topic = both(20)
    topic.ship(made_change(3), value=b"altered")
    for sequence in range(1, 11):
        del log.changes[sequence]
    log.pruned = 10
    found = verify([log], topic)
    assert found.ok
    assert (found.shards[0].tally.below_floor, found.shards[0].tally.compared) == (11, 10)


def test_a_change_that_the_log_itself_does_not_have_is_a_gap() -> None:
    log, topic = both(20)
    del log.changes[6]
    assert problems(verify([log], topic)) == [("gap", 6)]


def test_a_change_that_only_a_new_secondary_sees_is_no_gap() -> None:
    log, topic = both(20)
    log.appears_after_reopening = {6: log.changes.pop(6)}
    assert verify([log], topic).ok


def test_changes_that_are_pruned_while_they_are_read_are_no_gap() -> None:
    log, topic = both(20)
    for sequence in range(1, 7):
        del log.changes[sequence]
    log.pruned_after_reopening = 6
    found = verify([log], topic)
    assert found.ok
    assert found.shards[0].tally.below_floor == 6


def test_what_kafkas_retention_took_is_expired_and_what_is_younger_is_missing() -> None:
    log, topic = FakeLog(), FakeTopic()
    changes = log.add(6, keys=["acme/same-key"] * 6)
    topic.ship_all([*changes[:4], changes[5]])
    partition = HOME.of(b"acme/same-key")
    topic.expire(partition, 2)
    topic.oldest_us = changes[2].committed_at_us + 1
    found = verify([log], topic)
    assert problems(found) == [("missing", 5)]
    assert found.shards[0].tally.expired == 2


def test_a_replay_of_what_had_expired_repeats_it_and_is_not_out_of_order() -> None:
    log, topic = FakeLog(), FakeTopic()
    changes = log.add(6, keys=["acme/same-key"] * 6)
    topic.ship_all(changes)
    topic.expire(HOME.of(b"acme/same-key"), 3)
    topic.oldest_us = changes[3].committed_at_us + 1
    topic.ship(changes[1])
    found = verify([log], topic)
    assert found.ok
    assert (found.shards[0].tally.repeats, found.shards[0].tally.expired) == (1, 2)


def test_a_partition_that_was_emptied_can_not_be_compared() -> None:
    log, topic = both(12)
    partition = HOME.of(b"acme/checkout-00001")
    gone = len(topic.partitions[partition])
    topic.expire(partition, gone)
    found = verify([log], topic)
    assert found.ok
    assert found.shards[0].tally.expired == gone


def test_a_topic_that_was_made_anew_has_lost_everything() -> None:
    log, _topic = both(25)
    assert len(problems(verify([log], FakeTopic(), window=10))) == 25


@given(st.integers(0, 60), st.integers(1, 70), st.integers())
def test_windows_of_any_size_find_the_same(count: int, window: int, seed: int) -> None:
    random = Random(seed)
    log, topic = FakeLog(), FakeTopic()
    changes = log.add(count, keys=[f"acme/key-{random.randrange(9)}" for _ in range(count)])
    shipped = [change for change in changes if random.random() > 0.1]
    shipped += random.sample(shipped, len(shipped) // 3)
    if len(shipped) > 4:
        place = random.randrange(len(shipped) - 1)
        shipped[place], shipped[place + 1] = shipped[place + 1], shipped[place]
    topic.ship_all(shipped)
    whole, cut = verify([log], topic, window=10**6), verify([log], topic, window=window)
    assert sorted(problems(cut)) == sorted(problems(whole))
    assert vars(cut.shards[0].tally) | {"findings": 0} == vars(whole.shards[0].tally) | {"findings": 0}


class _BusyTopic(FakeTopic):
    """Changes are committed, shipped and acknowledged just before and just after it is asked for its ends."""

    def __init__(self, log: FakeLog) -> None:
        super().__init__()
        self.log = log

    def extents(self) -> dict[int, Extent]:
        self.ship_all(self.log.add(10))
        found = super().extents()
        self.ship_all(self.log.add(10))
        return found


def test_what_is_shipped_while_it_looks_is_neither_missing_nor_unexpected() -> None:
    log = FakeLog()
    topic = _BusyTopic(log)
    topic.ship_all(log.add(10))
    found = verify([log], topic)
    assert found.ok
    assert (found.shards[0].tally.compared, found.shards[0].tally.unshipped) == (10, 10)


def test_a_store_that_is_replaced_while_it_is_read_can_not_be_checked() -> None:
    log, topic = both(3)

    def replaced() -> object:
        log.store = b"n" * 16
        return log.look()

    log.look_until_seen = replaced  # type: ignore[method-assign, assignment]
    with pytest.raises(OperationalError, match="replaced"):
        verify([log], topic)


def test_waiting_ends_when_what_was_durable_is_shipped_or_time_is_over() -> None:
    log, _topic = both(3)
    assert wait_until_shipped([log], 0) == []
    log.acknowledged = 2
    assert [state.identity for state in wait_until_shipped([log], 0)] == [Identity(log.store, log.epoch)]
