"""What one round kills, and when: drawn from the campaign's seed and the round's number, so that a round that
failed can be had again. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

SHARD: Final = "shard"
TAILER: Final = "tailer"
KAFKA: Final = "kafka"

# Rounds by what happens in them. Kafka takes seconds to come back, so it is killed in one round of nine.
_KINDS: Final[dict[tuple[tuple[str, ...], ...], int]] = {
    ((SHARD,),): 5,
    ((TAILER,),): 5,
    ((SHARD, TAILER),): 4,
    ((TAILER,), (TAILER,)): 4,  # the second while it catches up with what the first has left
    ((SHARD,), (SHARD,)): 2,
    ((TAILER,), (SHARD,)): 2,
    ((SHARD,), (TAILER,)): 2,
    ((KAFKA,),): 1,
    ((KAFKA, TAILER),): 1,
    ((KAFKA, SHARD, TAILER),): 1,
}
_FIRST_AFTER_S_MAX: Final = 0.4
_NEXT_AFTER_S_MAX: Final = 1.0  # a process needs half of it to be there again


@dataclass(frozen=True)
class Kill:
    """All `victims` at once, `after_s` after the load has begun, or after the victims before are started."""

    victims: tuple[str, ...]
    after_s: float


def kills_of(seed: int, number: int) -> tuple[Kill, ...]:
    random = Random(f"{seed} {number}")
    (kind,) = random.choices(list(_KINDS), list(_KINDS.values()))
    return tuple(
        Kill(victims, random.uniform(0, _NEXT_AFTER_S_MAX if index else _FIRST_AFTER_S_MAX))
        for index, victims in enumerate(kind)
    )
