"""What a rule is: a promise, when it has something to look at, and what contradicts it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tollgate.cli.proof.testimony import Look, Witnessed


@dataclass(frozen=True)
class Rule:
    """`applies`: the testimony has what the rule compares; only then it counts as checked. `problems` are the
    contradictions, each a sentence about the payment, without its id.
    """

    name: str  # begins with the promise of the design, I1 to I8
    says: str
    applies: Callable[[Witnessed, Look], bool]
    problems: Callable[[Witnessed, Look], Iterator[str]]
