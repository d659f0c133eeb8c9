"""The ladder: each rung reached, and only a gap that the shard confirms halts."""

from __future__ import annotations

import pytest

from cdc.record import Record
from cdc.tailer import Ask, Identity, Idle, Open, Policy, Read, Restart, Store, Tailer, Wait
from tollgate.v1.change_pb2 import Change
from tollgate.v1.shard_pb2 import ReadChangesResponse
from tollgate.watermark import Watermark

ME = Identity(b"i" * 16, 4)
ROOM = 100


def change(sequence: int, *, shard: int = 0, incarnation: bytes = ME.incarnation, epoch: int = 4) -> bytes:
    return Change(
        key=f"acme/checkout-{sequence}",
        shard=shard,
        incarnation=incarnation,
        epoch=epoch,
        sequence=sequence,
        traceparent="00-trace",
        committed_at_us=1_000 + sequence,
    ).SerializeToString()


def rows(*sequences: int) -> list[tuple[int, bytes]]:
    return [(sequence, change(sequence)) for sequence in sequences]


def mark(sequence: int, identity: Identity = ME) -> Watermark:
    return Watermark(identity.incarnation, identity.epoch, sequence)


def answer(*changes: bytes, durable: int, acknowledged: int = 0, epoch: int = 4) -> ReadChangesResponse:
    return ReadChangesResponse(
        incarnation=ME.incarnation,
        epoch=epoch,
        durable_sequence=durable,
        acknowledged_sequence=acknowledged,
        changes=changes,
    )


def open_tailer(acknowledged: int = 0, batch: int = 10) -> Tailer:
    tailer = Tailer(0, Policy(batch_records_max=batch))
    assert tailer.next(mark(0), ROOM, 0.0) == Open(mark(0), "start")
    assert tailer.opened(Store(0, ME, acknowledged), mark(0), 0.0) == Restart(ME, acknowledged)
    return tailer


def test_it_reads_what_follows_the_shards_cursor_up_to_the_watermark() -> None:
    tailer = open_tailer(acknowledged=5)
    assert tailer.next(mark(5), ROOM, 0.0) == Idle()
    assert tailer.next(mark(8), ROOM, 0.0) == Read(5, 8)
    records = tailer.seen(Read(5, 8), rows(6, 7, 8), 0.0)
    assert records[0] == Record(6, 4, b"acme/checkout-6", b"00-trace", change(6))
    tailer.published(8)
    assert tailer.next(mark(8), ROOM, 0.0) == Idle()


def test_a_batch_and_the_window_bound_what_is_read() -> None:
    tailer = open_tailer(batch=10)
    assert tailer.next(mark(1000), ROOM, 0.0) == Read(0, 10)
    assert tailer.next(mark(1000), 3, 0.0) == Read(0, 3)
    assert tailer.next(mark(1000), 0, 0.0) == Wait()


def test_a_look_waits_for_room_that_is_worth_it_but_never_for_more_than_there_is() -> None:
    tailer = Tailer(0, Policy(batch_records_max=10, room_records_min=10))
    tailer.opened(Store(0, ME, 0), mark(0), 0.0)
    assert tailer.next(mark(1000), 9, 0.0) == Wait()
    assert tailer.next(mark(1000), 10, 0.0) == Read(0, 10)
    assert tailer.next(mark(3), 3, 0.0) == Read(0, 3)
    assert tailer.next(mark(3), 2, 0.0) == Wait()


def test_without_a_watermark_nothing_is_done() -> None:
    assert open_tailer().next(None, ROOM, 0.0) == Idle()


def test_what_comes_before_a_hole_is_shipped_and_the_hole_is_looked_at_again() -> None:
    tailer = open_tailer()
    assert [record.sequence for record in tailer.seen(Read(0, 5), rows(1, 2, 4, 5), 0.0)] == [1, 2]
    tailer.published(2)
    assert tailer.next(mark(5), ROOM, 0.0) == Read(2, 5)


def climb_to_the_shard(tailer: Tailer) -> None:
    """A hole at 1: caught up again, reopened, still there."""
    assert tailer.seen(Read(0, 5), rows(2, 3), 0.0) == []
    assert tailer.next(mark(5), ROOM, 0.0) == Read(0, 5)
    assert tailer.seen(Read(0, 5), rows(2, 3), 0.0) == []
    assert tailer.next(mark(5), ROOM, 0.0) == Open(mark(5), "gap")
    assert tailer.opened(Store(0, ME, 0), mark(5), 0.0) is None
    assert tailer.next(mark(5), ROOM, 0.0) == Read(0, 5)
    assert tailer.seen(Read(0, 5), rows(2, 3), 0.0) == []
    assert tailer.next(mark(5), ROOM, 0.0) == Ask(1, 10)


def test_the_ladder_ends_at_the_first_rung_that_helps() -> None:
    tailer = open_tailer()
    tailer.seen(Read(0, 5), rows(2), 0.0)
    assert len(tailer.seen(Read(0, 5), rows(1, 2), 0.0)) == 2
    tailer.published(2)
    assert tailer.seen(Read(2, 5), rows(4), 0.0) == []
    assert tailer.next(mark(5), ROOM, 0.0) == Read(2, 5), "the next hole starts at the first rung again"


def test_the_shard_fills_a_hole_that_only_the_secondary_has() -> None:
    tailer = open_tailer()
    climb_to_the_shard(tailer)
    records = tailer.answered(answer(change(1), change(2), durable=5), 0.0)
    assert isinstance(records, list)
    assert [record.sequence for record in records] == [1, 2]
    tailer.published(2)
    assert tailer.next(mark(5), ROOM, 0.0) == Read(2, 5)
    assert tailer.seen(Read(2, 5), rows(), 0.0) == []
    assert tailer.next(mark(5), ROOM, 0.0) == Ask(3, 10), (
        "a secondary that has failed is not waited for again"
    )


def test_a_gap_that_the_shard_confirms_halts_until_another_opening() -> None:
    tailer = open_tailer()
    climb_to_the_shard(tailer)
    assert tailer.answered(answer(durable=5), 0.0) == []
    assert tailer.halted is not None
    assert "no readable change 1" in tailer.halted
    assert "Operator action" in tailer.halted
    assert tailer.next(mark(9), ROOM, 4.0) == Idle()
    reopened = Identity(ME.incarnation, 5)
    assert tailer.next(mark(9, reopened), ROOM, 9.0) == Open(mark(9, reopened), "new epoch")
    assert tailer.opened(Store(0, reopened, 0), mark(9, reopened), 9.0) == Restart(reopened, 0)
    assert tailer.halted is None


def halted_tailer() -> Tailer:
    tailer = open_tailer()
    climb_to_the_shard(tailer)
    tailer.answered(answer(durable=5), 0.0)
    assert tailer.next(mark(5), ROOM, 4.9) == Idle()
    return tailer


def test_a_halted_tailer_looks_again_and_stays_halted_while_the_gap_is_there() -> None:
    tailer = halted_tailer()
    reason = tailer.halted
    assert tailer.next(mark(5), ROOM, 5.0) == Read(0, 5)
    assert tailer.seen(Read(0, 5), rows(2), 5.0) == []
    assert tailer.next(mark(5), ROOM, 5.0) == Ask(1, 10)
    assert tailer.answered(answer(durable=5), 5.0) == []
    assert tailer.halted == reason, "it is never ready in between"
    assert tailer.next(mark(5), ROOM, 9.9) == Idle()


def test_a_halted_tailer_goes_on_when_the_secondary_or_the_shard_has_the_change_again() -> None:
    tailer = halted_tailer()
    assert tailer.next(mark(5), ROOM, 5.0) == Read(0, 5)
    assert len(tailer.seen(Read(0, 5), rows(1, 2), 5.0)) == 2
    assert tailer.halted is None
    tailer = halted_tailer()
    tailer.next(mark(5), ROOM, 5.0)
    tailer.seen(Read(0, 5), rows(2), 5.0)
    records = tailer.answered(answer(change(1), durable=5), 5.0)
    assert isinstance(records, list)
    assert [record.sequence for record in records] == [1]
    assert tailer.halted is None


@pytest.mark.parametrize(
    "stored",
    [
        b"\xff\xff not protobuf",
        change(2),
        change(1, shard=1),
        change(1, incarnation=b"j" * 16),
    ],
    ids=["unparsable", "another sequence", "another shard", "another store"],
)
def test_a_record_that_is_not_what_its_key_says_is_a_hole(stored: bytes) -> None:
    tailer = open_tailer()
    assert tailer.seen(Read(0, 5), [(1, stored)], 0.0) == []
    climb_to_the_shard(open_tailer())
    tailer = open_tailer()
    climb_to_the_shard(tailer)
    assert tailer.answered(answer(stored, durable=5), 0.0) == []
    assert tailer.halted is not None


def test_a_tail_that_is_not_seen_yet_gets_two_seconds_then_a_reopening_then_the_shard() -> None:
    tailer = open_tailer()
    for now in (0.0, 1.0, 1.9):
        assert tailer.seen(Read(0, 5), [], now) == []
        assert tailer.next(mark(5), ROOM, now) == Read(0, 5)
    assert tailer.seen(Read(0, 5), [], 2.0) == []
    assert tailer.next(mark(5), ROOM, 2.0) == Open(mark(5), "gap")
    tailer.opened(Store(0, ME, 0), mark(5), 2.0)
    assert tailer.seen(Read(0, 5), [], 2.0) == []
    assert tailer.next(mark(5), ROOM, 2.0) == Ask(1, 10)


def test_a_watermark_ahead_of_the_shard_itself_is_no_gap() -> None:
    tailer = open_tailer()
    climb_to_the_shard(tailer)
    assert tailer.answered(answer(durable=0), 0.0) == []
    assert tailer.halted is None
    assert tailer.next(mark(5), ROOM, 0.0) == Wait()
    assert tailer.next(mark(5), ROOM, 1.0) == Read(0, 5), "the secondary is tried again, then the shard"


def test_a_cursor_that_the_secondary_has_not_seen_is_taken_from_the_shard() -> None:
    tailer = open_tailer()
    climb_to_the_shard(tailer)
    assert tailer.answered(answer(durable=5, acknowledged=3), 0.0) == Restart(ME, 3)
    assert tailer.next(mark(5), ROOM, 1.0) == Read(3, 5)


def test_an_answer_of_another_opening_says_nothing_about_this_one() -> None:
    tailer = open_tailer()
    climb_to_the_shard(tailer)
    assert tailer.answered(answer(durable=9, epoch=5), 0.0) == []
    assert tailer.halted is None


def test_while_the_shard_is_down_the_secondary_is_opened_anew_and_then_the_shard_asked_again() -> None:
    tailer = open_tailer()
    climb_to_the_shard(tailer)
    tailer.unanswered(0.0)
    assert tailer.next(mark(5), ROOM, 0.0) == Wait()
    assert tailer.next(mark(5), ROOM, 1.0) == Open(mark(5), "gap")
    tailer.opened(Store(0, ME, 0), mark(5), 1.0)
    assert tailer.seen(Read(0, 5), rows(2), 1.0) == []
    assert tailer.next(mark(5), ROOM, 1.0) == Ask(1, 10)


def test_a_secondary_that_cannot_be_reopened_still_leaves_the_shard_to_ask() -> None:
    tailer = open_tailer()
    tailer.unreadable()
    tailer.unreadable()
    assert tailer.next(mark(5), ROOM, 0.0) == Open(mark(5), "gap")
    tailer.not_opened(0.0)
    assert tailer.next(mark(5), ROOM, 0.0) == Wait()
    assert tailer.next(mark(5), ROOM, 1.0) == Ask(1, 10)


def test_a_new_epoch_goes_back_to_the_cursor_that_the_store_kept() -> None:
    tailer = open_tailer()
    tailer.seen(Read(0, 3), rows(1, 2, 3), 0.0)
    tailer.published(3)
    reopened = Identity(ME.incarnation, 5)
    assert tailer.next(mark(2, reopened), ROOM, 0.0) == Open(mark(2, reopened), "new epoch")
    assert tailer.opened(Store(0, reopened, 1), mark(2, reopened), 0.0) == Restart(reopened, 1)
    assert tailer.next(mark(2, reopened), ROOM, 0.0) == Read(1, 2)


def test_a_secondary_of_another_opening_than_the_watermarks_is_opened_again() -> None:
    tailer = Tailer(0, Policy())
    assert tailer.opened(Store(0, Identity(ME.incarnation, 3), 0), mark(5), 0.0) is None
    assert tailer.identity is None
    assert tailer.next(mark(5), ROOM, 0.0) == Wait()
    assert tailer.next(mark(5), ROOM, 1.0) == Open(mark(5), "start")


def test_another_shards_data_folder_halts() -> None:
    tailer = Tailer(0, Policy())
    assert tailer.opened(Store(7, ME, 0), mark(5), 0.0) is None
    assert tailer.halted is not None
    assert "shard 7" in tailer.halted
    assert tailer.next(mark(9), ROOM, 1.0) == Idle()
