"""A wire between one part and what it talks to, which can be cut, refused, stalled and slowed; bytes pass as
they are. The part's connections are led here by the preloaded shim, so that it knows nothing of it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from tests.fixtures.free_port import free_port

_HOST: Final = "127.0.0.1"
_CHUNK: Final = 64 * 1024


class Wire:
    def __init__(self, name: str, server_port: int) -> None:
        self.name = name
        self.server_port = server_port
        self.port = free_port()
        self._listening: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._delay_s = 0.0
        self._asked = 0

    async def open(self) -> None:
        if self._listening is None:
            self._listening = await asyncio.start_server(self._accept, _HOST, self.port)

    async def close(self) -> None:
        """Nobody listens, and every connection has ended."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        self.cut()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def cut(self) -> int:
        """How many connections that were."""
        for connection in self._connections:
            connection.cancel()
        return len(self._connections)

    @property
    def connections(self) -> int:
        return len(self._connections)

    @property
    def asked(self) -> int:
        """How many connections were ever made on it."""
        return self._asked

    def stall(self) -> None:
        self._flows.clear()

    def slow(self, delay_s: float) -> None:
        self._delay_s = delay_s

    def heal(self) -> None:
        self._flows.set()
        self._delay_s = 0.0

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._asked += 1
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        ways: list[asyncio.Task[None]] = []
        try:
            from_server, to_server = await asyncio.open_connection(_HOST, self.server_port)
            ends.append(to_server)
            ways = [
                asyncio.create_task(self._carry(reader, to_server)),
                asyncio.create_task(self._carry(from_server, writer)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass  # the server is down
        finally:
            for way in ways:
                way.cancel()
            for end in ends:
                end.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._flows.wait()
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)  # the time is what the fault is
                writer.write(data)
                await writer.drain()
