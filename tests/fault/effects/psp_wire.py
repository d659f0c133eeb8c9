"""A wire between one processor and the PSP's HTTP, call by call: the trap is asked before a call is passed
on, when it was, and when its answer is there.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import Final

from tests.fault.effects.plan import Moment, Step, When
from tests.fault.effects.trap import Trap
from tests.fixtures.free_port import free_port

_HOST: Final = "127.0.0.1"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


class PspWire:
    def __init__(self, processor: int, server_port: int, trap: Trap) -> None:
        self._processor = processor
        self._server_port = server_port
        self._trap = trap
        self._connections: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Server | None = None
        self._port = free_port()
        self.url = f"http://{_HOST}:{self._port}"

    async def open(self) -> None:
        self._listening = await asyncio.start_server(self._accept, _HOST, self._port)

    async def close(self) -> None:
        if self._listening is not None:
            self._listening.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            from_psp, to_psp = await asyncio.open_connection(_HOST, self._server_port)
            ends.append(to_psp)
            while await self._call(reader, to_psp) and await self._answer(from_psp, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass  # either side is gone, or closes a connection that it doesn't need
        finally:
            for end in ends:
                end.transport.abort()

    async def _call(self, reader: asyncio.StreamReader, to_psp: asyncio.StreamWriter) -> bool:
        call = await _whole(reader)
        if not await self._trap.reached(self._processor, Moment(Step.CALL, When.BEFORE)):
            return False
        to_psp.write(call)
        await to_psp.drain()
        return await self._trap.reached(self._processor, Moment(Step.CALL, When.DURING))

    async def _answer(self, from_psp: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        answer = await _whole(from_psp)
        if not await self._trap.reached(self._processor, Moment(Step.CALL, When.AFTER)):
            return False
        with suppress(OSError):
            writer.write(answer)
            await writer.drain()
        return not writer.is_closing()


async def _whole(reader: asyncio.StreamReader) -> bytes:
    """A request or an answer with its body, whose length is said."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return head + (await reader.readexactly(int(length[1])) if length else b"")
