"""A wire between one processor and Postgres that knows which transaction a COMMIT ends.

Messages pass whole and unchanged; at a commit, before it and before its answer, the trap is asked. Requests
for encryption are answered with no, so that all is readable.

Source: PostgreSQL documentation, "Message Formats" of protocol 3.0.
"""

from __future__ import annotations

import asyncio
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from tests.fault.effects.plan import Moment, Step, When
from tests.fault.effects.trap import Trap
from tests.fixtures.free_port import free_port

HOST: Final = "127.0.0.1"
_ENCRYPTION: Final = frozenset({80877103, 80877104})  # TLS, GSSAPI

# What only a transaction of that step says.
_SAYS: Final = {
    Step.INTAKE: b"INSERT INTO payment_shards",
    Step.REQUEST: b"INSERT INTO operations (merchant, checkout_id, id, type, amount, status, created_at",
    Step.CLAIM: b"claimed_at = coalesce(o.claimed_at",
    Step.ATTEMPT: b"INSERT INTO attempts",
    Step.OUTCOME: b"UPDATE attempts AS a SET",
    Step.RELAY: b"UPDATE outbox SET published_at",
}


_NONE: Final[frozenset[Step]] = frozenset()


@dataclass
class _Session:
    """What one connection is at."""

    steps: dict[bytes, Step | None] = field(default_factory=dict)  # of prepared statements, by name
    doing: frozenset[Step] = _NONE  # in the open transaction
    committing: frozenset[Step] = _NONE  # on its way to Postgres or back

    def asked(self, kind: bytes, body: bytes) -> frozenset[Step]:
        """The steps that this message of the processor commits. What intake begins it claims."""
        match kind:
            case b"P":
                name, query, _ = body.split(b"\0", 2)
                self.steps[name] = next((step for step, says in _SAYS.items() if says in query), None)
            case b"B":
                _portal, name, _ = body.split(b"\0", 2)
                step = self.steps.get(name)
                if step is Step.RELAY:  # a statement on its own
                    self.committing = frozenset({step})
                    return self.committing
                if step is not None:
                    self.doing |= {step}
            case b"Q" if body.startswith(b"COMMIT"):
                begun = {Step.CLAIM} if {Step.INTAKE, Step.ATTEMPT} <= self.doing else _NONE
                self.committing, self.doing = self.doing | begun, _NONE
                return self.committing
            case b"Q" if body.startswith((b"BEGIN", b"ROLLBACK")):
                self.doing = _NONE
        return _NONE

    def answered(self, kind: bytes, body: bytes) -> frozenset[Step]:
        """The steps whose commit this message of Postgres confirms."""
        if kind != b"C":
            return _NONE
        confirmed, self.committing = self.committing, _NONE
        return confirmed if body.startswith((b"COMMIT", b"UPDATE")) else _NONE


class PostgresWire:
    def __init__(self, processor: int, server_port: int, trap: Trap) -> None:
        self._processor = processor
        self._server_port = server_port
        self._trap = trap
        self._sessions: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Server | None = None
        self.port = free_port()

    async def open(self) -> None:
        self._listening = await asyncio.start_server(self._accept, HOST, self.port)

    async def close(self) -> None:
        if self._listening is not None:
            self._listening.close()
        for session in self._sessions:
            session.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = asyncio.create_task(self._serve(reader, writer))
        self._sessions.add(session)
        session.add_done_callback(self._sessions.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        ways: list[asyncio.Task[None]] = []
        try:
            start = await _start_message(reader, writer)
            from_server, to_server = await asyncio.open_connection(HOST, self._server_port)
            ends.append(to_server)
            to_server.write(start)
            session = _Session()
            ways.append(asyncio.create_task(self._requests(session, reader, to_server)))
            ways.append(asyncio.create_task(self._answers(session, from_server, writer)))
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except (OSError, asyncio.IncompleteReadError):
            pass  # Postgres is down, or the processor
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in ends:
                end.transport.abort()

    async def _requests(
        self, session: _Session, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                kind, message = await _message(reader)
                if not await self._pass(session.asked(kind, message[5:]), When.BEFORE):
                    return
                writer.write(message)
                await writer.drain()

    async def _pass(self, steps: frozenset[Step], when: When) -> bool:
        """Whether the message that commits these steps, or tells of it, goes on."""
        for step in steps:
            if not await self._trap.reached(self._processor, Moment(step, when)):
                return False
        return True

    async def _answers(
        self, session: _Session, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                kind, message = await _message(reader)
                if not await self._pass(session.answered(kind, message[5:]), When.AFTER):
                    return
                writer.write(message)
                await writer.drain()


async def _start_message(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    while True:
        head = await reader.readexactly(8)
        size, code = struct.unpack(">ii", head)
        if code not in _ENCRYPTION:
            return head + await reader.readexactly(size - 8)
        writer.write(b"N")


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Its kind, and all of it."""
    head = await reader.readexactly(5)
    (size,) = struct.unpack(">i", head[1:])
    return head[:1], head + await reader.readexactly(size - 4)
