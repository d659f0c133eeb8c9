"""Whether payments.changes can be trusted with what is shipped, asked at the start and again and again.

Until it has been seen as it must be, nothing is shipped; an outage afterwards changes nothing, the producer
waits it out. What is seen wrong later (deleted, fewer replicas, other partitions) stops shipping until it is
mended. A topic that was deleted and made anew is told of: what was acknowledged is not in it, and only a
replay brings it back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

import structlog

from cdc import metrics
from tollgate.errors import OperationalError
from tollgate.growing_wait import GrowingWait
from tollgate.kafka_topics import Refused, Seen, SeenTopic, impairments, problems
from tollgate.topics import CHANGES, TopicSpec, topic_specs

_LOOK_EVERY_S: Final = 30.0
_RETRY_S_MIN: Final = 0.25
_RETRY_S_MAX: Final = 5.0

log = structlog.get_logger()


class Topic(NamedTuple):
    """What a producer must know of the topic that it is built for."""

    partitions: int
    record_bytes_max: int


UNKNOWN: Final = Topic(0, 1_000_000)


class Verdict(NamedTuple):
    """`topic` None: nothing may be shipped. `trouble` is said in either case."""

    topic: Topic | None
    trouble: str | None


def judge(seen: Seen) -> Verdict:
    """Pure."""
    found = seen.topics[CHANGES]
    if isinstance(found, Refused):
        return Verdict(None, f"{found.reason}. Operator action: make that good; shipping goes on by itself.")
    wrong = problems(_spec(embedded=seen.embedded), found, embedded=seen.embedded)
    if wrong:
        return Verdict(
            None,
            f"Topic {CHANGES} can't be used: {'; '.join(wrong)}. Nothing is shipped. Operator action: "
            "correct the topic; partitions are fixed for life, so a wrong number there needs an empty one.",
        )
    trouble = "; ".join(impairments(found))
    return Verdict(
        Topic(found.partitions, found.record_bytes_max),
        f"Topic {CHANGES}: {trouble}. Operator action: bring its brokers back." if trouble else None,
    )


def _spec(*, embedded: bool) -> TopicSpec:
    return next(spec for spec in topic_specs(embedded=embedded) if spec.name == CHANGES)


class TopicWatch:
    """`look` is blocking and bounded; it raises OperationalError when Kafka doesn't answer."""

    def __init__(self, look: Callable[[], Seen]) -> None:
        self._look = look
        self._lock = asyncio.Lock()
        self._id: str | None = None
        self.topic: Topic | None = None
        self.trouble: str | None = f"Topic {CHANGES} has not been looked at yet."

    async def run(self) -> None:
        """Until cancelled."""
        wait = GrowingWait(_RETRY_S_MIN, _RETRY_S_MAX)
        while True:
            await self.look()
            if self.trouble is None:
                wait.reset()
            await asyncio.sleep(_LOOK_EVERY_S if self.trouble is None else wait.next())

    async def look(self) -> None:
        async with self._lock:
            try:
                seen = await asyncio.to_thread(self._look)
            except OperationalError as error:
                self._take(Verdict(self.topic, error.message))
            else:
                self._notice(seen.topics[CHANGES])
                self._take(judge(seen))

    def _notice(self, found: SeenTopic | Refused) -> None:
        if not isinstance(found, SeenTopic):
            return
        if self._id is not None and found.id != self._id:
            metrics.TOPIC_REPLACED.inc()
            log.error(
                "topic_replaced",
                topic=CHANGES,
                action="Operator action: it was deleted and made anew, and what had been acknowledged is not "
                "in it; `tollgate cdc replay` ships again what the shard still has.",
            )
        self._id = found.id

    def _take(self, verdict: Verdict) -> None:
        if verdict.trouble is not None and verdict.trouble != self.trouble:
            log.error("topic_trouble", reason=verdict.trouble, shipping=verdict.topic is not None)
        elif verdict.trouble is None and self.trouble is not None:
            log.info("topic_as_it_must_be", topic=CHANGES)
        self.topic, self.trouble = verdict
        metrics.TOPIC_UNUSABLE.set(verdict.topic is None)
