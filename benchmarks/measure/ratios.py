"""What repeated, interleaved runs say: medians with their spread, and ratios within a round. Pure.

A ratio is taken between two runs of the same round, minutes or seconds apart on the same machine, and the
median over the rounds is what counts: how fast the machine was that day cancels out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Spread:
    """The median of `count` values and how far they lie apart."""

    median: float
    least: float
    most: float
    count: int


def spread(values: Sequence[float]) -> Spread | None:
    """None when there is no value."""
    if not values:
        return None
    return Spread(median(values), min(values), max(values), len(values))


def ratios(numerators: Mapping[int, float], denominators: Mapping[int, float]) -> Spread | None:
    """Of the rounds that both have (round → value). A zero denominator makes no pair."""
    pairs = [
        numerators[number] / denominators[number]
        for number in sorted(numerators.keys() & denominators.keys())
        if denominators[number] > 0
    ]
    return spread(pairs)


def written(value: Spread | None, write: Callable[[float], str]) -> str:
    """`median (least-most)`, or a dash."""
    if value is None:
        return "-"
    if value.count == 1:
        return write(value.median)
    return f"{write(value.median)} ({write(value.least)}-{write(value.most)})"
