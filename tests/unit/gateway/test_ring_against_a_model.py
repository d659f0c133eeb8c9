from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.errors import RingFull
from gateway.ring import Ring

SLOTS = 5
BYTES_MAX = 100


class RingAgainstAList(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ring: Ring[int] = Ring(SLOTS, BYTES_MAX)
        self.model: list[tuple[int, int]] = []
        self.pushed = 0

    @rule(size=st.integers(0, 60))
    def push(self, size: int) -> None:
        fits = len(self.model) < SLOTS and sum(s for _, s in self.model) + size <= BYTES_MAX
        self.pushed += 1
        if fits:
            self.ring.push(self.pushed, size)
            self.model.append((self.pushed, size))
        else:
            with pytest.raises(RingFull):
                self.ring.push(self.pushed, size)

    @rule(count=st.integers(0, 7))
    def drain(self, count: int) -> None:
        expected = [item for item, _ in self.model[:count]]
        assert self.ring.drain(count) == expected
        del self.model[:count]

    @invariant()
    def it_counts_what_it_holds(self) -> None:
        assert len(self.ring) == len(self.model)
        assert self.ring.bytes == sum(size for _, size in self.model)


TestRingAgainstAList = RingAgainstAList.TestCase
