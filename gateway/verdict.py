"""What one who was asked about a payment answers, and what the answers of all mean together. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TypeAlias

from tollgate.v1.payment_pb2 import Payment


class Absence(Enum):
    UNKNOWN = "unknown"  # a no: there is none
    SILENT = "silent"  # could not be asked, or did not answer in time: there may be one


Answer: TypeAlias = Payment | Absence


def verdict(answers: Sequence[Answer | None]) -> Answer | None:
    """All answers as one, the Ledger's first; None while one that matters is outstanding.

    What the Ledger has is final: Postgres alone decides, so no shard can know better. Else the newest version
    is told, of shards at the same version the first one's. Only if everyone has said no, it is a no.
    """
    if isinstance(answers[0], Payment):
        return answers[0]
    if None in answers:
        return None
    found = [answer for answer in answers if isinstance(answer, Payment)]
    if found:
        return max(found, key=lambda payment: payment.version)
    return Absence.SILENT if Absence.SILENT in answers else Absence.UNKNOWN
