"""Counts for the velocity rules. What is asked while Postgres is being asked goes into the next statement.

Nothing is cached: what counts is what every processor has seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from processor.risk.rules import Velocity, subject_of
from processor.storage.database import Pool
from processor.storage.velocity import Question, count_sightings, prune_sightings
from tollgate.errors import OperationalError, TollgateError
from tollgate.v1.payment_pb2 import Payment

_BATCH_MAX: Final = 500
_PRUNE_EVERY_S: Final = 60.0
_PRUNE_BATCH: Final = 10_000
# A payment is asked about again only until its first send is stored, and that ends with its hour.
_ASKED_AGAIN_S: Final = 24 * 3600.0

_log = structlog.get_logger()


class Counting(Protocol):
    async def counts(self, payment: Payment, rules: Sequence[Velocity]) -> Mapping[Velocity, int]:
        """Asked twice, it answers the same and counts once. Raises OperationalError."""
        ...


@dataclass(frozen=True, slots=True)
class _Asked:
    questions: list[Question]
    answer: asyncio.Future[list[int]]


class SharedCounts:
    """In Postgres, over all processors. `run` it while it is asked."""

    def __init__(self, pool: Pool, rules: Sequence[Velocity]) -> None:
        self._pool = pool
        self._keep_s = _ASKED_AGAIN_S + max((rule.window_s for rule in rules), default=0.0)
        self._queue: asyncio.Queue[_Asked] = asyncio.Queue()

    async def counts(self, payment: Payment, rules: Sequence[Velocity]) -> Mapping[Velocity, int]:
        questions = [
            Question(
                payment.merchant,
                payment.checkout_id,
                rule.of,
                subject_of(payment, rule.of),
                rule.window_s,
                rule.more_than + 1,
            )
            for rule in rules
        ]
        if not questions:
            return {}
        asked = _Asked(questions, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(asked)  # bounded by the operations in flight, which wait for it
        return dict(zip(rules, await asked.answer, strict=True))

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._answer())
            group.create_task(self._prune())

    async def _answer(self) -> None:
        while True:
            batch = [await self._queue.get()]
            while not self._queue.empty() and len(batch) < _BATCH_MAX:
                batch.append(self._queue.get_nowait())
            batch = [asked for asked in batch if not asked.answer.done()]  # who waits no more counts later
            if batch:
                await self._answer_all(batch)

    async def _answer_all(self, batch: Sequence[_Asked]) -> None:
        try:
            counts = await count_sightings(self._pool, [one for asked in batch for one in asked.questions])
        except TollgateError as error:
            for asked in batch:
                if not asked.answer.done():
                    asked.answer.set_exception(OperationalError(error.message))
            return
        answers = iter(counts)
        for asked in batch:
            own = [next(answers) for _ in asked.questions]
            if not asked.answer.done():
                asked.answer.set_result(own)

    async def _prune(self) -> None:
        while True:
            try:
                while await prune_sightings(self._pool, self._keep_s, _PRUNE_BATCH) == _PRUNE_BATCH:
                    pass
            except OperationalError as error:
                _log.warning("sightings_not_pruned", detail=error.message)
            await asyncio.sleep(_PRUNE_EVERY_S)
