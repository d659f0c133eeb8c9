"""The spool gives back what it was given, payment by payment, and the ledger is cut where its rows end."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.cli.told_payment import told_payment
from tollgate.cli.proof.read_ledger import rows_of
from tollgate.cli.proof.spool import Spool
from tollgate.cli.proof.testimony import Effect, Kind, Witnessed


def put(spool: Spool, testimony: Witnessed) -> None:
    for kind, records in (
        (Kind.TOLD, testimony.told),
        (Kind.ROW, [testimony.row]),
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
            assert record is not None
            spool.add(kind, testimony.key, record)


def test_a_payment_comes_back_whole_whatever_lay_between(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        put(spool, told_payment())
        for number in range(5_000):
            spool.add(Kind.EFFECT, f"demo/{number}", Effect(str(number), "charge", "", 1, "EUR", number))
        found = {testimony.key: testimony for bucket in spool.buckets() for testimony in bucket}
    expected = told_payment()
    expected.conflicts, expected.anomalies = {b"x"}, ["odd"]
    expected.dead_letters, expected.unpublished_us = ["poison"], [7]
    assert found.pop(expected.key) == expected
    assert len(found) == 5_000
    assert all(testimony.effects[0].id == key.removeprefix("demo/") for key, testimony in found.items())


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
