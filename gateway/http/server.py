"""Which server the app is put under: a setting, one contract suite (docs/decisions/0008)."""

from __future__ import annotations

from typing import Final, Literal, Protocol

from gateway.http.connection_bounds import ConnectionBounds
from gateway.http.granian_server import GranianServer
from gateway.http.httptools_server import HttptoolsServer
from gateway.http.routes import HttpApp

_BOUNDS: Final = ConnectionBounds()
ServerName = Literal["httptools", "granian-rsgi", "granian-asgi"]


class HttpServer(Protocol):
    async def start(self, timeout_s: float) -> None:
        """Returns once connections are accepted. Raises ConfigurationError when the address is taken."""
        ...

    async def stop(self, timeout_s: float) -> bool:
        """Accepts no more, lets what is under way end; False when some did not within `timeout_s`."""
        ...


def http_server(
    app: HttpApp, listen: str, name: ServerName, bounds: ConnectionBounds = _BOUNDS
) -> HttpServer:
    """`listen` is host:port. Call it on the loop that will serve.

    Granian knows no reserve: beyond its own number of connections it accepts none.
    """
    if name == "httptools":
        return HttptoolsServer(app, listen, bounds)
    return GranianServer(app, listen, rsgi=name == "granian-rsgi")
