"""The spool gives back what it was given, payment by payment, and the ledger is cut where its rows end."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.cli.told_payment import LOOK, told_payment
from tollgate.cli.proof.judging import FINDINGS_KEPT, Tally
from tollgate.cli.proof.judging_apart import judged_apart
from tollgate.cli.proof.read_ledger import rows_of
from tollgate.cli.proof.spool import Spool, shares_of
from tollgate.cli.proof.testimony import Effect, Kind, Witnessed


def put(spool: Spool, testimony: Witnessed) -> None:
    for kind, records in (
        (Kind.TOLD, testimony.told),
        (Kind.ROW, [] if testimony.row is None else [testimony.row]),
        (Kind.OPERATION, testimony.operations),
        (Kind.ACCEPTED, testimony.accepted),
        (Kind.STORED, testimony.stored),
        (Kind.EVENT, testimony.events),
        (Kind.SNAPSHOT, testimony.snapshots),
        (Kind.EFFECT, testimony.effects),
        (Kind.SHIPPED_BY, [(shard,) for shard in testimony.shipped_by]),
        (Kind.CONFLICT, [(b"x",)]),
        (Kind.ANOMALY, [("odd",)]),
        (Kind.DEAD_LETTER, [("poison",)]),
        (Kind.UNPUBLISHED, [(7,)]),
    ):
        for record in records:
            spool.add(kind, testimony.key, record)


def test_a_payment_comes_back_whole_whatever_lay_between(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        put(spool, told_payment())
        for number in range(5_000):
            spool.add(Kind.EFFECT, f"demo/{number}", Effect(str(number), "charge", "", 1, "EUR", number))
        found = {
            testimony.key: testimony
            for bucket in spool.buckets()
            for share in shares_of(bucket)
            for testimony in share
        }
    expected = told_payment()
    expected.conflicts, expected.anomalies = {b"x"}, ["odd"]
    expected.dead_letters, expected.unpublished_us = ["poison"], [7]
    assert found.pop(expected.key) == expected
    assert len(found) == 5_000
    assert all(testimony.effects[0].id == key.removeprefix("demo/") for key, testimony in found.items())


def test_a_large_bucket_is_taken_in_shares_each_payment_once_and_whole(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        for number in range(10_000):
            spool.add(Kind.SHIPPED_BY, f"demo/{number % 5_000}", (number,))
        buckets = spool.buckets()
    largest = 0
    keys: list[str] = []
    for bucket in buckets:
        for share in shares_of(bucket, in_memory_bytes=bucket.stat().st_size // 4):
            largest = max(largest, len(share))
            keys += [one.key for one in share]
            for one in share:
                number = int(one.key.removeprefix("demo/"))
                assert one.shipped_by == {number, number + 5_000}
    assert sorted(keys) == sorted(f"demo/{number}" for number in range(5_000))
    assert largest < 20  # of 5,000 in 256 files there are some 20 in each


def test_other_processes_judge_as_this_one_does(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        for number in range(300):
            told = told_payment()
            told.key = f"demo/{number}"
            if number % 3 == 0:
                told.row = None
            put(spool, told)
        buckets = spool.buckets()
    here, there = (Tally(), Tally())
    for tally, worth_it in ((here, 1 << 30), (there, 1)):
        for judged in judged_apart(buckets, LOOK, spool.records, worth_it):
            tally.take(judged)
    assert here == there
    assert here.payments == 300
    assert here.found["I1 set aside"] == 300  # the dead letter of each


def test_what_other_tallies_found_is_counted_whole_and_kept_within_bounds() -> None:
    tally, other = Tally(), Tally(payments=2)
    for number in range(FINDINGS_KEPT + 5):
        other.find("I1 lost", f"demo/{number}", "lost")
    tally.find("I1 lost", "demo/first", "lost")
    tally.take(other)
    tally.take(other)
    assert tally.found["I1 lost"] == 1 + 2 * (FINDINGS_KEPT + 5)
    assert len(tally.findings) == FINDINGS_KEPT
    assert tally.payments == 4


NASTY = st.text(alphabet='},{"[]:a\\', max_size=12)


@given(st.lists(NASTY, max_size=20), st.integers(1, 60))
def test_a_ledger_is_read_in_pieces_of_any_size_with_any_key(keys: list[str], size: int) -> None:
    effects = [{"id": str(n), "idempotency_key": key} for n, key in enumerate(keys)]
    raw = orjson.dumps({"effects": effects, "calls": [{"at": "x"}]})
    pieces = [raw[start : start + size] for start in range(0, len(raw), size)]
    assert list(rows_of(pieces)) == effects


@pytest.mark.parametrize("raw", [b"", b'{"effects":[{"id":"1"}', b'{"error":"no"}, and more of it'])
def test_a_ledger_that_is_not_whole_or_none_is_said_so(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"not whole|no ledger"):
        list(rows_of([raw]))
