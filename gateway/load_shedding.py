"""Whether the shard takes another request now, decided before anything of it is read.

A shard that is offered more than it can do has its queue in the sockets, where no ring sees it: the loop
reads whoever has sent meanwhile, and the longer that takes, the more have sent when it looks again. So a turn
of the loop takes requests for `turn_ms_max` only; whoever comes after that in the same turn is refused at a
quarter of the cost, and the accepted wait two or three turns at most. A ring that is full refuses here too.
Bounds of both kinds and their measurements: docs/decisions/0011.

It looks at the clock and the ring once in `look_every` requests while it is open, and at each one while it is
shut: what is counted in between costs 40 ns. The first turn after the rush takes everybody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from tollgate.clock import Clock

_BETWEEN_TURNS: Final = float("-inf")


class Fillable(Protocol):
    @property
    def is_full(self) -> bool: ...


class Gate:
    """`at_turn_end` calls back once the loop's turn is over: the loop's `call_soon`."""

    def __init__(
        self,
        ring: Fillable,
        clock: Clock,
        at_turn_end: Callable[[Callable[[], Any]], Any],
        *,
        turn_ms_max: float,
        look_every: int,
    ) -> None:
        self._ring = ring
        self._now = clock.monotonic
        self._at_turn_end = at_turn_end
        self._turn_s_max = turn_ms_max / 1000
        self._ends = _BETWEEN_TURNS
        self._unseen_max = look_every - 1
        self._unseen = 0  # how many more pass before the next look

    def is_shut(self) -> bool:
        if self._unseen:
            self._unseen -= 1
            return False
        if self._looks_shut():
            return True
        self._unseen = self._unseen_max
        return False

    def _looks_shut(self) -> bool:
        if self._ends == _BETWEEN_TURNS:
            self._ends = self._now() + self._turn_s_max
            self._at_turn_end(self._end_turn)
            return self._ring.is_full
        return self._now() >= self._ends or self._ring.is_full

    def _end_turn(self) -> None:
        self._ends = _BETWEEN_TURNS
