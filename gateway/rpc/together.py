"""Questions that arise while a call is under way go together with the next one, as payments share a commit.

A gRPC server in Python takes one call a turn of its event loop. Where that loop works for a pipeline as well,
a call for each question waits in line for its turn, and the line grows; one call for all of them does not.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

QuestionT = TypeVar("QuestionT")
AnswerT = TypeVar("AnswerT")


class Together(Generic[QuestionT, AnswerT]):
    """Belongs to one event loop. `call` is handed at most `at_a_time` questions and the longest time that one
    of those who ask gives it, in seconds; it returns their answers in the same order.
    """

    def __init__(
        self, call: Callable[[Sequence[QuestionT], float], Awaitable[Sequence[AnswerT]]], at_a_time: int
    ) -> None:
        self._call = call
        self._at_a_time = at_a_time
        self._waiting: deque[tuple[QuestionT, float, asyncio.Future[AnswerT]]] = deque()
        self._calling: asyncio.Task[None] | None = None

    async def ask(self, question: QuestionT, timeout_s: float) -> AnswerT:
        """At once when no call is under way. Raises what the call raises."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[AnswerT] = loop.create_future()
        self._waiting.append((question, timeout_s, answer))
        if self._calling is None:
            self._calling = loop.create_task(self._until_nobody_waits())
        return await answer

    async def _until_nobody_waits(self) -> None:
        try:
            while self._waiting:
                asked = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._at_a_time))]
                asked = [one for one in asked if not one[2].done()]  # the others have given up
                if asked:
                    await self._answer(asked)
        finally:
            self._calling = None

    async def _answer(self, asked: Sequence[tuple[QuestionT, float, asyncio.Future[AnswerT]]]) -> None:
        questions, times, futures = zip(*asked, strict=True)
        try:
            answers = await self._call(questions, max(times))
        except Exception as error:  # whatever it is, it belongs to those who asked
            for future in futures:
                if not future.done():
                    future.set_exception(error)
            return
        for future, answer in zip(futures, answers, strict=True):
            if not future.done():
                future.set_result(answer)
