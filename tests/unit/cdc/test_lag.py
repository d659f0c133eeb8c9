"""Lag counts what is not delivered, whether or not it has been read."""

from __future__ import annotations

import pytest

from cdc.cursor import Delivered, Span
from cdc.lag import Lag, LagMeter
from cdc.record import Record
from cdc.tailer import Identity
from tollgate.v1.change_pb2 import Change

NOW_US = 1_790_000_000_000_000
SECOND_US = 1_000_000


def record(sequence: int, age_s: int = 0, size: int = 50) -> Record:
    change = Change(sequence=sequence, committed_at_us=NOW_US - age_s * SECOND_US)
    value = change.SerializeToString()
    padding = Change(traceparent="x" * (size - len(value) - 2)).SerializeToString()
    return Record(sequence, 1, b"acme/checkout", b"", value + padding)


@pytest.fixture
def delivered() -> Delivered:
    found = Delivered()
    found.restart(Identity(b"i" * 16, 1), 0)
    return found


def test_without_anything_undelivered_there_is_no_lag(delivered: Delivered) -> None:
    delivered.sent([record(1, age_s=9)])
    delivered.reported([Span(1, 1)])
    assert LagMeter().measure(1, delivered, NOW_US) == Lag(0, 0, 0.0)


def test_what_is_not_read_yet_counts_at_the_mean_size_and_the_age_of_the_oldest_in_flight(
    delivered: Delivered,
) -> None:
    delivered.sent([record(1, age_s=70, size=60)])
    delivered.sent([record(2, age_s=60, size=40), record(3, age_s=50, size=50)])
    delivered.reported([Span(1, 1)])
    assert LagMeter().measure(1_003, delivered, NOW_US) == Lag(1_002, 90 + 1_000 * 50, 60.0)


def test_with_nothing_in_flight_the_age_grows_from_when_the_log_was_first_seen_waiting(
    delivered: Delivered,
) -> None:
    meter = LagMeter()
    assert meter.measure(5, delivered, NOW_US) == Lag(5, 0, 0.0)
    assert meter.measure(9, delivered, NOW_US + 30 * SECOND_US).seconds == 30.0
    delivered.sent([record(1), record(2)])
    delivered.reported([Span(1, 2)])
    assert meter.measure(9, delivered, NOW_US + 31 * SECOND_US).seconds == 0.0, "another one is the oldest"
    assert meter.measure(9, delivered, NOW_US + 41 * SECOND_US).seconds == 10.0


def test_a_clock_that_was_set_back_makes_no_negative_age(delivered: Delivered) -> None:
    delivered.sent([record(1)])
    assert LagMeter().measure(1, delivered, NOW_US - SECOND_US).seconds == 0.0
