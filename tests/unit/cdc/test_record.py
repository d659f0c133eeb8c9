"""What is read out of a change in place is what parsing all of it gives, for every change there can be."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from cdc.record import Record, RecordReader
from gateway.change_log import ChangeWriter, Identity
from tollgate.v1.change_pb2 import Change, Webhook
from tollgate.v1.payment_pb2 import Payment

INCARNATION = b"i" * 16
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOW_US = 1_790_000_000_000_000

sequences = st.integers(1, 300) | st.integers(1, 2**40)
shards = st.integers(0, 63)
keys = st.from_regex(r"[a-z0-9_]{1,32}/[A-Za-z0-9_-]{8,64}", fullmatch=True) | st.text(max_size=300)
traces = st.just(TRACE) | st.text(max_size=80)
times = st.integers(NOW_US, 2 * NOW_US) | st.integers(0, 2**63 - 1)
payments = st.builds(
    Payment, merchant=st.text(max_size=20), amount=st.integers(0, 2**40), description=st.text(max_size=20_000)
)


def parsed(expected: int, shard: int, value: bytes) -> Record | None:
    """The plain way. None: it is not the change `expected` of this store."""
    try:
        change = Change.FromString(value)
    except DecodeError:
        return None
    if (change.sequence, change.shard, change.incarnation) != (expected, shard, INCARNATION):
        return None
    return Record(expected, change.epoch, change.key.encode(), change.traceparent.encode(), value)


def written(shard: int, epoch: int, sequence: int, **fields: Any) -> bytes:
    values = {"key": "acme/checkout-1", "committed_at_us": NOW_US, "traceparent": TRACE, "payment": b""}
    return ChangeWriter(Identity(shard, INCARNATION, epoch)).acceptance(
        sequence=sequence, **{**values, **fields}
    )


def reader_in_mid_run(shard: int, sequence: int) -> RecordReader:
    """It has met the epoch's first change, so the next is read in place."""
    reader = RecordReader(shard, INCARNATION)
    assert reader.following(sequence - 2, [(sequence - 1, written(shard, 1, sequence - 1))])[1] is None
    return reader


@given(sequences, shards, keys, traces, times, payments, st.integers(1, 2))
def test_a_change_as_the_shard_writes_it_is_read_as_it_is_parsed(
    sequence: int, shard: int, key: str, trace: str, time_us: int, payment: Payment, epoch: int
) -> None:
    value = written(
        shard,
        epoch,
        sequence,
        key=key,
        traceparent=trace,
        committed_at_us=time_us,
        payment=payment.SerializeToString(),
    )
    reader = reader_in_mid_run(shard, sequence)
    assert reader.following(sequence - 1, [(sequence, value)]) == ([parsed(sequence, shard, value)], None)


@given(sequences, shards, keys, traces, times, payments)
def test_a_change_with_its_fields_in_another_order_is_read_as_it_is_parsed(
    sequence: int, shard: int, key: str, trace: str, time_us: int, payment: Payment
) -> None:
    change = Change(key=key, shard=shard, incarnation=INCARNATION, epoch=1, sequence=sequence)
    rest = Change(committed_at_us=time_us, traceparent=trace, acceptance=payment)
    for value in (
        change.SerializeToString() + rest.SerializeToString(),
        rest.SerializeToString() + change.SerializeToString(),
    ):
        reader = reader_in_mid_run(shard, sequence)
        assert reader.following(sequence - 1, [(sequence, value)]) == (
            [parsed(sequence, shard, value)],
            None,
        )


@given(sequences, shards, st.data())
def test_whatever_follows_or_is_changed_in_it_the_two_ways_agree(
    sequence: int, shard: int, data: st.DataObject
) -> None:
    """Fields again after the body, which win in protobuf; a byte changed; an end cut off or grown."""
    value = written(shard, 1, sequence, payment=Payment(merchant="acme", amount=7).SerializeToString())
    # A body is passed on as it is: only what stands around it decides.
    head = len(value) - len(Payment(merchant="acme", amount=7).SerializeToString())
    broken = bytearray(value)
    match data.draw(st.sampled_from(("a byte", "the end", "fields", "rubbish"))):
        case "a byte":
            broken[data.draw(st.integers(0, head - 1))] = data.draw(st.integers(0, 255))
        case "the end":
            del broken[data.draw(st.integers(0, len(value))) :]
        case "fields":
            broken += data.draw(
                st.sampled_from(
                    [
                        Change(key="other/key"),
                        Change(epoch=9),
                        Change(sequence=sequence + 1),
                        Change(shard=shard + 1),
                        Change(traceparent="other"),
                        Change(webhook=Webhook(psp="stripe")),
                    ]
                )
            ).SerializeToString()
        case _:
            broken += data.draw(st.binary(min_size=1, max_size=8))
    found, problem = reader_in_mid_run(shard, sequence).following(sequence - 1, [(sequence, bytes(broken))])
    expected = parsed(sequence, shard, bytes(broken))
    assert found == ([] if expected is None else [expected])
    assert (problem is None) == (expected is not None)


@pytest.mark.parametrize("byte", range(8))
def test_a_time_of_another_length_is_not_taken_for_one_of_eight_bytes(byte: int) -> None:
    """The continuation bit of one of its bytes is turned: what follows is read from another place."""
    value = bytearray(written(0, 1, 1_000))
    time = Change(committed_at_us=NOW_US).SerializeToString()
    value[value.index(time) + 1 + byte] ^= 0x80
    expected = parsed(1_000, 0, bytes(value))
    found, _ = reader_in_mid_run(0, 1_000).following(999, [(1_000, bytes(value))])
    assert found == ([] if expected is None else [expected])


def test_a_long_run_over_several_epochs_is_read_without_parsing_more_than_it_must(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = 0
    whole = RecordReader._parsed

    def counted(self: RecordReader, expected: int, value: bytes) -> Record | str:
        nonlocal calls
        calls += 1
        return whole(self, expected, value)

    monkeypatch.setattr(RecordReader, "_parsed", counted)
    first = 16_000
    rows = [
        (
            sequence,
            written(3, 1 + sequence // 16_384, sequence, payment=b"\x0a\x04acme" * (1 + sequence % 90)),
        )
        for sequence in range(first, first + 1_000)
    ]
    found, problem = RecordReader(3, INCARNATION).following(first - 1, rows)
    assert problem is None
    assert found == [parsed(sequence, 3, value) for sequence, value in rows]
    assert calls == 2, "one for each epoch"


def test_the_rows_end_at_the_first_that_does_not_follow() -> None:
    rows = [(sequence, written(0, 1, sequence)) for sequence in (1, 2, 4)]
    found, problem = RecordReader(0, INCARNATION).following(0, rows)
    assert [record.sequence for record in found] == [1, 2]
    assert problem == "4 follows 2"


def test_when_it_was_committed_is_asked_of_the_change_itself() -> None:
    (record,), _ = RecordReader(0, INCARNATION).following(0, [(1, written(0, 1, 1))])
    assert record.committed_at_us() == NOW_US
