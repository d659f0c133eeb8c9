from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.change_log import MARK_BYTES, ChangeWriter, Identity, LogState, Mark, RetentionPolicy, prunable
from tollgate.v1.change_pb2 import Change
from tollgate.v1.payment_pb2 import MetadataEntry, Payment, Status

DAY_US = 24 * 3600 * 1_000_000
POLICY = RetentionPolicy(age_us=DAY_US, bytes_max=4 * MARK_BYTES)


@given(
    key=st.text(max_size=80),
    shard=st.integers(0, 63),
    epoch=st.integers(0, 2**64 - 1),
    sequence=st.integers(0, 2**64 - 1),
    at=st.integers(0, 2**63 - 1),
    traceparent=st.text(max_size=55),
    description=st.text(max_size=40_000),
)
def test_a_spliced_change_parses_as_if_it_were_built_whole(
    key: str, shard: int, epoch: int, sequence: int, at: int, traceparent: str, description: str
) -> None:
    payment = Payment(
        merchant="acme",
        checkout_id="order-0001",
        status=Status.STATUS_PENDING,
        amount=1,
        description=description,
        metadata=[MetadataEntry(key="k", value=description)],
        fingerprint=b"\xff" * 32,
    )
    incarnation = bytes(range(16))
    writer = ChangeWriter(Identity(shard, incarnation, epoch))
    spliced = writer.acceptance(key, sequence, at, traceparent, payment.SerializeToString())
    assert Change.FromString(spliced) == Change(
        key=key,
        shard=shard,
        incarnation=incarnation,
        epoch=epoch,
        sequence=sequence,
        committed_at_us=at,
        traceparent=traceparent,
        acceptance=payment,
    )


def log_with(*marks: Mark, acknowledged: int, bytes_total: int | None = None) -> LogState:
    total = marks[-1].bytes_total if bytes_total is None else bytes_total
    return LogState(last=marks[-1].sequence, acknowledged=acknowledged, bytes_total=total, marks=marks)


def test_acknowledged_changes_stay_for_their_age() -> None:
    log = log_with(Mark(10, 0, 1), Mark(20, DAY_US, 2), acknowledged=20)
    assert prunable(log, POLICY, DAY_US) is None
    assert prunable(log, POLICY, DAY_US + 1) == 10
    assert prunable(log, POLICY, 2 * DAY_US + 1) == 20


def test_what_is_not_acknowledged_never_goes() -> None:
    log = log_with(Mark(10, 0, MARK_BYTES), Mark(20, 0, 2**40), acknowledged=19)
    assert prunable(log, POLICY, 9 * DAY_US) == 10
    assert prunable(log_with(Mark(10, 0, 2**40), acknowledged=9), POLICY, 9 * DAY_US) is None


@given(st.lists(st.integers(MARK_BYTES, 2 * MARK_BYTES), min_size=1, max_size=12))
def test_the_acknowledged_log_never_outgrows_its_bound_by_more_than_a_piece(pieces: list[int]) -> None:
    marks, total = [], 0
    for index, piece in enumerate(pieces, 1):
        total += piece
        marks.append(Mark(index, 0, total))
    through = prunable(log_with(*marks, acknowledged=len(pieces)), POLICY, 0)
    kept = total - (marks[through - 1].bytes_total if through else 0)
    assert kept < POLICY.bytes_max + max(pieces)
    if through is None:
        assert total - pieces[0] < POLICY.bytes_max
