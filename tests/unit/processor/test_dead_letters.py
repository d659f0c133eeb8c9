"""What a dead letter is called, what stands behind it, and what a redrive sends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from processor.dead_letters import (
    OpenLetters,
    Origin,
    dlq_record,
    key_hash,
    origin_of,
    parse_origin,
    redriven,
    replays_of,
)
from tests.fixtures.changes import accepted_payment, change_record
from tollgate import topics

RECORD = replace(change_record(accepted_payment()), partition=3, offset=17)
ORIGIN = Origin(topics.CHANGES, 3, 17)


def test_a_record_is_called_by_where_it_first_was_however_often_it_comes_back() -> None:
    assert origin_of(RECORD) == ORIGIN
    dead = dlq_record(RECORD, "no good")
    for replays in (1, 2):
        sent = redriven(dead.key, dead.value, dead.headers, ORIGIN, replays)
        back = replace(RECORD, offset=900 + replays, headers=sent.headers)
        assert origin_of(back) == ORIGIN
        assert replays_of(back.headers) == replays
        dead = dlq_record(back, "no good still")
        said = dict(dead.headers)
        assert (said["origin_offset"], said["attempts"]) == (b"17", str(replays + 1).encode())


def test_a_redrive_sends_the_bytes_key_headers_and_partition_that_the_record_had() -> None:
    dead = dlq_record(RECORD, "no good")
    sent = redriven(dead.key, dead.value, dead.headers, ORIGIN, 1)
    assert (sent.topic, sent.partition, sent.key, sent.value) == (
        RECORD.topic,
        RECORD.partition,
        RECORD.key,
        RECORD.value,
    )
    assert list(sent.headers)[: len(RECORD.headers)] == list(RECORD.headers)
    assert dict(sent.headers)["replay_count"] == b"1"


def test_only_what_came_later_under_the_same_key_stands_behind_a_letter() -> None:
    letters = OpenLetters([(key_hash(RECORD.key), ORIGIN)])
    assert letters.blocks(replace(RECORD, offset=18))
    assert not letters.blocks(RECORD)  # itself, delivered once more
    assert not letters.blocks(replace(RECORD, offset=16))
    assert not letters.blocks(replace(RECORD, offset=18, key=b"another/checkout-0001"))
    assert not letters.blocks(replace(RECORD, offset=18, partition=4))
    sent = redriven(RECORD.key, RECORD.value, RECORD.headers, ORIGIN, 1)
    assert not letters.blocks(replace(RECORD, offset=99, headers=sent.headers))


@pytest.mark.parametrize("text", ["", "a/b", "a/1/x", "a/-1/2", "/1/2", "a/1", "a/1/²"])
def test_a_name_that_is_none_is_not_taken_for_one(text: str) -> None:
    assert parse_origin(text) is None
    assert origin_of(replace(RECORD, headers=[("redriven_from", text.encode())])) == ORIGIN
