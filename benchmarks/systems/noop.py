"""The shard's own server with a handler that does nothing.

Run by `python -m benchmarks.systems.noop ADDRESS SERVER`. It is the limit of a shard alone: what any handler
behind this server, its adapter and this loop could reach at best. Its answers are as long as a shard's.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from typing import Final, cast, get_args

import uvloop

from benchmarks.systems.sample import ANSWER
from gateway.http.message import Request, Respond, Response
from gateway.http.routes import HttpApp
from gateway.http.server import ServerName, http_server

_START_TIMEOUT_S: Final = 10.0
_STOP_TIMEOUT_S: Final = 2.0


class NoOp(HttpApp):
    """Answers everything at once with the same bytes."""

    def __init__(self) -> None:
        """Without routes, metrics and what else the shard's app has."""

    def start(self, request: Request, respond: Respond) -> bool:
        respond(self._answer(request))
        return True

    async def handle(self, request: Request) -> Response:
        return self._answer(request)

    @staticmethod
    def _answer(request: Request) -> Response:
        status = 202 if request.method == "POST" else 200
        headers = [("content-type", "application/json"), ("cache-control", "no-store"), ("retry-after", "2")]
        return Response(status, headers, ANSWER)


async def serve(listen: str, name: ServerName) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = http_server(NoOp(), listen, name)
    # As the shard does it.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    await server.start(_START_TIMEOUT_S)
    await stop.wait()
    await server.stop(_STOP_TIMEOUT_S)


if __name__ == "__main__":
    _, address, chosen = sys.argv
    names: tuple[ServerName, ...] = get_args(ServerName)
    uvloop.run(serve(address, names[names.index(cast("ServerName", chosen))]))
