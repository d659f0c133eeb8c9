"""A histogram that reads a little low makes every latency claim a lie: it is held against plain sorting."""

from __future__ import annotations

import ctypes
import math
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.measure.histogram import Histogram, merge, read, upper_edge
from benchmarks.systems.builds import ROOT, c_compiler

SOURCE = ROOT / "benchmarks" / "loadgen" / "histogram.c"
LARGEST = 2**40 - 1

durations = st.one_of(st.integers(0, LARGEST), st.integers(0, 5_000), st.integers(10_000, 10_000_000))


@pytest.fixture(scope="session")
def c_bucket(tmp_path_factory: pytest.TempPathFactory) -> ctypes._NamedFuncPointer:
    """The generator's own numbering of buckets, compiled from its source."""
    compiler = c_compiler()
    if compiler is None:
        pytest.skip("there is no C compiler here")
    library = tmp_path_factory.mktemp("histogram") / "histogram.so"
    subprocess.run(
        [*compiler, "-std=c17", "-O2", "-shared", "-fPIC", str(SOURCE), "-o", str(library)],
        check=True,
        timeout=60,
    )
    function = ctypes.CDLL(str(library)).histogram_bucket
    function.argtypes = [ctypes.c_uint64]
    function.restype = ctypes.c_size_t
    return function


def bucket_of(nanoseconds: int) -> int:
    """The first bucket whose upper edge is not below: the definition, slow and plain."""
    low, high = 0, 34 * 128
    while low < high:
        middle = (low + high) // 2
        if upper_edge(middle) >= nanoseconds:
            high = middle
        else:
            low = middle + 1
    return low


def counted(values: list[int]) -> Histogram:
    counts: dict[int, int] = {}
    for value in values:
        counts[bucket_of(value)] = counts.get(bucket_of(value), 0) + 1
    return Histogram(tuple(sorted(counts.items())), max(values, default=0))


@given(durations)
@example(127)
@example(128)
@example(255)
@example(256)
@example(LARGEST)
def test_the_generator_and_the_reader_number_buckets_alike(
    c_bucket: ctypes._NamedFuncPointer, nanoseconds: int
) -> None:
    assert c_bucket(nanoseconds) == bucket_of(nanoseconds)


def test_what_is_longer_than_all_buckets_falls_into_the_last(c_bucket: ctypes._NamedFuncPointer) -> None:
    assert c_bucket(2**64 - 1) == c_bucket(LARGEST) == 34 * 128 - 1


@given(durations)
def test_a_bucket_is_never_below_its_values_and_at_most_a_128th_above(nanoseconds: int) -> None:
    edge = upper_edge(bucket_of(nanoseconds))
    assert nanoseconds <= edge <= nanoseconds + nanoseconds / 128


@given(st.lists(durations, min_size=1, max_size=300), st.sampled_from([0.0, 50.0, 90.0, 99.0, 99.9, 100.0]))
def test_a_percentile_is_never_below_the_nearest_rank_and_at_most_a_128th_above(
    values: list[int], percent: float
) -> None:
    exact = sorted(values)[max(1, math.ceil(round(len(values) * percent / 100, 6))) - 1]
    seen = counted(values).percentile_ns(percent)
    assert seen is not None
    assert exact <= seen <= exact + exact / 128


def test_the_slowest_of_a_thousand_is_beyond_p99_9_and_is_the_maximum() -> None:
    histogram = counted([1_000] * 999 + [5_000_000])
    assert histogram.percentile_ns(99.9) == upper_edge(bucket_of(1_000))
    assert histogram.percentile_ns(100) == histogram.max_ns == 5_000_000


def test_two_slow_ones_of_a_thousand_are_seen_at_p99_9() -> None:
    assert counted([1_000] * 998 + [5_000_000] * 2).percentile_ns(99.9) == 5_000_000


def test_an_empty_histogram_has_no_percentile() -> None:
    assert Histogram().percentile_ns(50) is None


@given(st.lists(durations, max_size=100), st.lists(durations, max_size=100))
def test_merging_is_counting_everything_in_one(left: list[int], right: list[int]) -> None:
    assert merge((counted(left), counted(right))) == counted(left + right)


@pytest.mark.parametrize(
    "document",
    [
        {"count": 3, "max_ns": 9, "buckets": [[1, 1], [9, 1]]},
        {"count": 2, "max_ns": 9, "buckets": [[9, 1], [1, 1]]},
    ],
)
def test_a_histogram_that_contradicts_itself_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="add up"):
        read(document)


def test_the_readers_layout_is_the_headers() -> None:
    header = (ROOT / "benchmarks" / "loadgen" / "histogram.h").read_text()
    assert "HISTOGRAM_BITS = 7" in header
    assert Path(SOURCE).exists()
