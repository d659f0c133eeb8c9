"""Granian in this process, on this loop, with a stop that is bounded. No signals, no processes."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing
from typing import Final

from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server

from gateway.http.address import address_taken
from gateway.http.asgi import AsgiApp
from gateway.http.routes import HttpApp
from gateway.http.rsgi import RsgiApp
from tollgate.errors import OperationalError

_BACKLOG: Final = 1024
_CONNECT_INTERVAL_S: Final = 0.01


class GranianServer:
    """`rsgi`: Granian's own interface, else ASGI."""

    def __init__(self, app: HttpApp, listen: str, *, rsgi: bool) -> None:
        host, _, port = listen.rpartition(":")
        self._address = (host, int(port))
        self._server = Server(
            RsgiApp(app) if rsgi else AsgiApp(app),
            address=host,
            port=int(port),
            interface=Interfaces.RSGI if rsgi else Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            backlog=_BACKLOG,
            log_enabled=False,
        )
        self._serving: asyncio.Task[None] | None = None

    async def start(self, timeout_s: float) -> None:
        """Returns once connections are accepted. Raises ConfigurationError when the address is taken."""
        _check_free(self._address)
        self._serving = asyncio.create_task(self._server.serve(), name="http")
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not await _accepts(self._address):
            if self._serving.done() or asyncio.get_running_loop().time() > deadline:
                raise OperationalError("The HTTP server did not start. Read the log above and start again.")
            await asyncio.sleep(_CONNECT_INTERVAL_S)

    async def stop(self, timeout_s: float) -> bool:
        """Accepts no more, lets what is under way end; False when some did not within `timeout_s`."""
        if self._serving is None:
            return True
        self._server.stop()  # type: ignore[no-untyped-call]
        done, _ = await asyncio.wait([self._serving], timeout=timeout_s)
        return bool(done)


def _check_free(address: tuple[str, int]) -> None:
    """Granian shares its port (SO_REUSEPORT): a second shard would silently take half of the requests."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise address_taken(address, error) from error


async def _accepts(address: tuple[str, int]) -> bool:
    try:
        _, writer = await asyncio.open_connection(*address)
    except OSError:
        return False
    writer.close()
    return True
