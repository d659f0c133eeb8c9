"""What every risk assessor is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from tollgate.v1.payment_pb2 import Payment

SCORE_MAX: Final = 99


@dataclass(frozen=True)
class Assessment:
    """`score` 0–99; `reasons` are stable words for the record; `declined` is the verdict."""

    score: int
    reasons: tuple[str, ...]
    declined: bool


class RiskAssessor(Protocol):
    async def assess(self, payment: Payment) -> Assessment:
        """The same payment always comes to the same assessment; asking twice has no effect."""
        ...

    def assess_at_once(self, payment: Payment) -> Assessment | None:
        """The same, when nobody has to be asked for it; else None."""
        ...
