"""Questions that share a call: as few calls as there are turns, each question answered as if asked alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from gateway.rpc.together import Together
from tollgate.errors import OperationalError


class Callee:
    """Answers a question with its double, once it is let."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[int], float]] = []
        self.called = asyncio.Semaphore(0)
        self.let = asyncio.Semaphore(0)
        self.broken = False

    async def __call__(self, questions: Sequence[int], timeout_s: float) -> list[int]:
        self.calls.append((list(questions), timeout_s))
        self.called.release()
        await self.let.acquire()
        if self.broken:
            raise OperationalError("No answer.")
        return [2 * question for question in questions]


@pytest.fixture
def callee() -> Callee:
    return Callee()


def ask(together: Together[int, int], *questions: int) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(together.ask(question, question / 10)) for question in questions]


async def under_way(together: Together[int, int], callee: Callee, question: int) -> asyncio.Task[int]:
    (task,) = ask(together, question)
    await callee.called.acquire()
    return task


async def test_the_first_goes_at_once_and_what_comes_meanwhile_goes_together(callee: Callee) -> None:
    together = Together(callee, at_a_time=3)
    tasks = [await under_way(together, callee, 1), *ask(together, 2, 3, 4, 5)]
    assert callee.calls == [([1], 0.1)]
    for _ in range(3):
        callee.let.release()
    assert await asyncio.gather(*tasks) == [2, 4, 6, 8, 10]
    assert callee.calls[1:] == [([2, 3, 4], 0.4), ([5], 0.5)]


async def test_who_has_given_up_is_not_asked_for_and_takes_nobody_with_him(callee: Callee) -> None:
    together = Together(callee, at_a_time=8)
    first = await under_way(together, callee, 1)
    second, third = ask(together, 2, 3)
    first.cancel()
    second.cancel()
    await asyncio.wait({first, second})
    callee.let.release()
    callee.let.release()
    assert await third == 6
    assert [questions for questions, _ in callee.calls] == [[1], [3]]


async def test_a_failure_is_told_to_those_who_asked_and_the_next_are_asked_for_anew(callee: Callee) -> None:
    together = Together(callee, at_a_time=8)
    callee.broken = True
    first = await under_way(together, callee, 1)
    second, third = ask(together, 2, 3)
    callee.let.release()
    with pytest.raises(OperationalError):
        await first
    callee.broken = False
    callee.let.release()
    assert [await second, await third] == [4, 6]
    later = await under_way(together, callee, 4)
    callee.let.release()
    assert await later == 8
