"""The ids that the load generator gives payment `index` of the run `seed` (benchmarks/loadgen/request.c).

What was filled in here can be polled, and sent again, by the generator. Pure.
"""

from __future__ import annotations

from typing import Final

_MASK: Final = (1 << 64) - 1


def checkout_id(seed: int, index: int) -> str:
    first = _mix((seed + index * 0x9E3779B97F4A7C15) & _MASK)
    second = _mix(first ^ seed)
    digits = f"{first:016x}{second:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _mix(z: int) -> int:
    """splitmix64's finalizer. Source: Vigna, https://prng.di.unimi.it/splitmix64.c"""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
