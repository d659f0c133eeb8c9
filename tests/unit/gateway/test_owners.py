"""Whom a shard asks about an id: against a model of where payments can be."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from zlib import crc32

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.owners import NEVER, Owners
from tests.fixtures.elsewhere import NOW_US, RETENTION_US, entries, grpc_of, ring_of
from tollgate.ring_file import RingFile
from tollgate.ring_hash import HOLDERS, Ring

ids = st.from_regex(r"[A-Za-z0-9_-]{8,64}", fullmatch=True)


@st.composite
def histories(draw: st.DrawFn) -> tuple[tuple[int, ...], ...]:
    """Rings from the first to the present one: shards are added under new ids and removed for ever."""
    ring = tuple(range(draw(st.integers(1, 4))))
    rings, next_id = [ring], len(ring)
    for adds in draw(st.lists(st.booleans(), max_size=6)):
        if adds or len(ring) == 1:
            ring, next_id = (*ring, next_id), next_id + 1
        else:
            gone = draw(st.sampled_from(ring))
            ring = tuple(shard for shard in ring if shard != gone)
        rings.append(ring)
    return tuple(rings)


def file_of(rings: tuple[tuple[int, ...], ...], retired: tuple[int, ...] = ()) -> RingFile:
    return ring_of(*reversed(rings), retired=retired)


def owners(file: RingFile, own: int, now_us: int = NOW_US) -> Owners:
    return Owners(file, own, now_us, RETENTION_US)


def preferred(ring: tuple[int, ...], checkout_id: str) -> list[int]:
    """Where nginx would send it: the owner, then the next when a connection can't be made."""
    names = {shard.name: shard.id for shard in entries(ring)}
    return [names[name] for name in Ring(list(names)).preference(checkout_id, HOLDERS)]


def all_shards(rings: tuple[tuple[int, ...], ...]) -> set[int]:
    return {shard for ring in rings for shard in ring}


@settings(max_examples=60)
@given(histories(), ids, st.data())
def test_wherever_a_payment_was_accepted_a_read_asks_there(
    rings: tuple[tuple[int, ...], ...], checkout_id: str, data: st.DataObject
) -> None:
    accepted_on = data.draw(st.sampled_from(rings))
    holder = data.draw(st.sampled_from(preferred(accepted_on, checkout_id)))
    reader = data.draw(st.sampled_from(sorted(all_shards(rings))))
    asked = owners(file_of(rings), reader).asked_before_denying(checkout_id)
    assert holder == reader or grpc_of(holder) in asked
    assert grpc_of(reader) not in asked
    assert len(asked) == len(set(asked)) <= HOLDERS * len(rings)


@settings(max_examples=60)
@given(histories(), ids, st.data())
def test_before_it_accepts_a_shard_asks_every_other_owner_and_nobody_else(
    rings: tuple[tuple[int, ...], ...], checkout_id: str, data: st.DataObject
) -> None:
    shard = data.draw(st.sampled_from(sorted(all_shards(rings))))
    asked = owners(file_of(rings), shard).asked_before_accepting(checkout_id)
    others = {preferred(ring, checkout_id)[0] for ring in rings} - {shard}
    assert (asked is None) == (not others)
    assert set(asked or ()) == set(map(grpc_of, others))


@settings(max_examples=60)
@given(histories(), ids, st.data())
def test_an_id_is_owned_since_the_last_ring_on_which_it_was_anothers(
    rings: tuple[tuple[int, ...], ...], checkout_id: str, data: st.DataObject
) -> None:
    shard = data.draw(st.sampled_from(sorted(all_shards(rings))))
    file = file_of(rings)
    left_at_us = [NOW_US + number for number in range(len(rings) - 1)]  # of each ring but the present
    history = [
        ring.model_copy(update={"left_at_us": at})
        for ring, at in zip(file.history, reversed(left_at_us), strict=True)
    ]
    file = file.model_copy(update={"history": tuple(history)})
    own = [preferred(ring, checkout_id)[0] == shard for ring in rings]
    since_us = 0
    for owned, left_us in zip(own, [*left_at_us, NEVER], strict=True):
        since_us = since_us if owned else left_us
    assert owners(file, shard).owned_since_us(checkout_id) == since_us


@settings(max_examples=30)
@given(histories(), st.data())
def test_the_table_agrees_with_the_ring_for_ids_at_the_ends_of_arcs_too(
    rings: tuple[tuple[int, ...], ...], data: st.DataObject
) -> None:
    known = owners(file_of(rings), 0)
    for checkout_id in data.draw(st.lists(ids, min_size=20, max_size=20)):
        assert known.is_own(checkout_id) == (preferred(rings[-1], checkout_id)[0] == 0)
    ring = Ring([shard.name for shard in entries(rings[-1])])
    for left, right in pairwise(ring.points):
        assert ring.owner_at(left + 1) == ring.owner_at(right)
    assert ring.owner_at(2**32) == ring.owner_at(0) == ring.owner_at(ring.points[0])


def some_ids(count: int = 400) -> Iterator[str]:
    return (f"checkout-{n:06}" for n in range(count))


def test_an_id_that_was_always_this_shards_asks_nobody() -> None:
    alone = Owners(None, 3, NOW_US, RETENTION_US)
    assert alone.asked_before_accepting("checkout-0001") is None
    assert alone.asked_before_denying("checkout-0001") == ()
    assert alone.is_own("checkout-0001")
    known = owners(ring_of((0, 1, 2)), 1)
    for checkout_id in some_ids():
        owner = preferred((0, 1, 2), checkout_id)[0]
        assert known.asked_before_accepting(checkout_id) == (None if owner == 1 else (grpc_of(owner),))


def test_an_id_beyond_the_last_point_belongs_to_the_first_arc() -> None:
    last = Ring([shard.name for shard in entries((0, 1, 2))]).points[-1]
    beyond = [i for i in some_ids(20_000) if crc32(i.encode()) > last]
    assert beyond
    for own in (0, 1, 2):
        known = owners(ring_of((0, 1, 2)), own)
        for checkout_id in beyond:
            owner = preferred((0, 1, 2), checkout_id)[0]
            assert known.asked_before_accepting(checkout_id) == (None if owner == own else (grpc_of(owner),))


def test_a_shard_that_is_on_no_ring_asks_the_owners() -> None:
    joining = owners(ring_of((0, 1)), 2)
    for checkout_id in some_ids():
        assert joining.asked_before_accepting(checkout_id) == (grpc_of(preferred((0, 1), checkout_id)[0]),)
        assert not joining.is_own(checkout_id)


def test_for_a_retired_shard_the_ledger_speaks_but_it_is_asked() -> None:
    known = owners(ring_of((0, 1), (0, 1, 2), retired=(2,)), 0)
    moved = [i for i in some_ids() if preferred((0, 1, 2), i)[0] == 2 and preferred((0, 1), i)[0] == 0]
    assert moved
    for checkout_id in moved:
        assert known.asked_before_accepting(checkout_id) == (), "nobody but the Ledger"
        assert known.asked_before_denying(checkout_id) == (grpc_of(1),)
    assert known.addresses == {grpc_of(1)}


def test_a_former_ring_is_forgotten_when_nobody_can_have_a_payment_from_it() -> None:
    file = ring_of((0, 1), (0, 1, 2), left_at_us=NOW_US)
    ends_us = NOW_US + RETENTION_US
    known = owners(file, 0, ends_us - 1)
    assert known.addresses == {grpc_of(1), grpc_of(2)}
    assert known.valid_until_us == ends_us
    assert owners(file, 0, ends_us).addresses == {grpc_of(1)}


def test_a_shard_is_asked_where_the_newest_ring_says_it_is() -> None:
    file = ring_of((0, 1), (0, 1, 2))
    elsewhere = tuple(shard.model_copy(update={"grpc": "10.0.0.1:1"}) for shard in file.history[0].shards)
    former = file.history[0].model_copy(update={"shards": elsewhere})
    assert owners(file.model_copy(update={"history": (former,)}), 0).addresses == {grpc_of(1), "10.0.0.1:1"}
