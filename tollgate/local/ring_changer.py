"""Adding and removing shards, one change at a time, each finished even if it was interrupted anywhere.

The ring file says where a change stands (see ring_changes); what has to be done for it is done by `hands`, in
this order:

1. add: note that the shard joins ▸ start it and wait until it is ready ▸ put it on the ring ▸ have the ring
   served. One that doesn't get ready is ended and given up; once it is on the ring there is no way back but
   to remove it.
2. remove: take it off the ring ▸ have the ring served ▸ drain it ▸ note that it is retired ▸ have that known,
   so that nobody waits for an answer of a shard that is gone ▸ end it.

A step that failed or was cut off is taken again, by `keep` or by the next command: every one of them may be
taken twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from tollgate.clock import Clock
from tollgate.errors import TollgateError
from tollgate.local import ring_changes
from tollgate.ring_file import RingFile, ShardEntry

_RETRY_S: Final = 5.0

_log = structlog.get_logger()

Say = Callable[[str], None]


class Hands(Protocol):
    """What is done to the running stack. Every method may be called again for what is done already."""

    def next_address(self, ring: RingFile) -> tuple[str, str]:
        """Name and gRPC address for the next shard. Raises ConfigurationError when there is none."""
        ...

    async def start(self, shard: ShardEntry) -> None:
        """Returns when shard and cdc are ready. Raises OperationalError when they don't get so."""
        ...

    async def end(self, shard: ShardEntry) -> None:
        """Ends shard and cdc and forgets what they left in Kafka; their data stay."""
        ...

    async def serve(self, ring: RingFile) -> None:
        """Returns when the parts know the ring and requests go by it. Raises OperationalError."""
        ...

    def check_drainable(self, shard: int) -> None:
        """Raises RejectedInput when nobody would answer for the shard's payments once it is gone."""
        ...

    async def drain(self, shard: ShardEntry, say: Say) -> None:
        """Returns when Postgres has all that the shard ever took. Waits for it without an end."""
        ...


class RingChanger:
    """`write` is durable and blocking, and may raise OSError; `ring` is what it was called with last."""

    def __init__(self, ring: RingFile, write: Callable[[RingFile], None], hands: Hands, clock: Clock) -> None:
        self.ring = ring
        self._served = ring.version  # everything is started by the file
        self._write = write
        self._hands = hands
        self._clock = clock
        self._turn = asyncio.Lock()

    async def add(self, say: Say) -> ShardEntry:
        """Raises TollgateError; then there is no new shard, or `keep` finishes what was begun."""
        async with self._turn:
            await self._finish(say)
            ring_changes.check_addable(self.ring)
            await self._note(ring_changes.joining(self.ring, *self._hands.next_address(self.ring)))
            return await self._join(say)

    async def remove(self, shard: int, say: Say) -> None:
        """Raises TollgateError; then nothing was changed, or `keep` finishes what was begun."""
        begun = self.ring.leaving is not None and self.ring.leaving.id == shard
        async with self._turn:
            await self._finish(say)
            if not begun:
                ring_changes.check_removable(self.ring, shard)
                self._hands.check_drainable(shard)
                await self._note(ring_changes.leaving(self.ring, shard, self._clock.now_us()))
                await self._leave(say)

    async def keep(self) -> None:
        """Until cancelled: finishes what a killed supervisor or a failed step left, and tries again."""
        while True:
            if self._unfinished and not self._turn.locked():
                try:
                    async with self._turn:
                        await self._finish(_to_the_log)
                except Exception as error:  # the edge of the loop: payments go on whatever is wrong here
                    _log.exception("the change of the ring is not finished", error=str(error))
            await asyncio.sleep(_RETRY_S)

    @property
    def _unfinished(self) -> bool:
        ring = self.ring
        return ring.joining is not None or ring.leaving is not None or self._served != ring.version

    async def _finish(self, say: Say) -> None:
        if self.ring.joining is not None:
            await self._join(say)
        if self.ring.leaving is not None:
            await self._leave(say)
        await self._serve(say)

    async def _join(self, say: Say) -> ShardEntry:
        shard = self.ring.joining
        assert shard is not None  # noqa: S101 - the callers have just looked or written it
        say(f"shard {shard.id} starts")
        try:
            await self._hands.start(shard)
        except TollgateError:
            await self._hands.end(shard)
            await self._note(ring_changes.given_up(self.ring))
            raise
        await self._note(ring_changes.joined(self.ring, self._clock.now_us()))
        await self._serve(say)
        return shard

    async def _leave(self, say: Say) -> None:
        shard = self.ring.leaving
        assert shard is not None  # noqa: S101 - as in `_join`
        await self._serve(say)
        if not ring_changes.is_retired(self.ring):
            await self._hands.drain(shard, say)
            await self._note(ring_changes.retired(self.ring))
            await self._serve(say)
        say(f"shard {shard.id} ends")
        await self._hands.end(shard)
        await self._note(ring_changes.ended(self.ring))

    async def _serve(self, say: Say) -> None:
        if self._served != self.ring.version:
            say(f"ring {self.ring.version} spreads")
            await self._hands.serve(self.ring)
            self._served = self.ring.version

    async def _note(self, ring: RingFile) -> None:
        await asyncio.to_thread(self._write, ring)
        self.ring = ring


def _to_the_log(note: str) -> None:
    _log.info("finishing a change of the ring", note=note)
