"""Renders nginx's configuration from the ring file: one renderer, whatever nginx runs on.

Pure: the same ring and settings give the same bytes. nginx's own errors are listed here as data, so that each
is problem+json with a stable code. What is written survives a crash and is rendered anew before each start.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tollgate.ring_file import RingFile
from tollgate.ring_hash import HOLDERS

_TEMPLATE_FOLDER: Final = Path(__file__).resolve().parent.parent / "nginx"
_FILES_BESIDE_CONNECTIONS: Final = 128
TEMP_FOLDERS: Final = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@dataclass(frozen=True)
class Tls:
    certificate: Path
    key: Path


@dataclass(frozen=True)
class RunAs:
    """Whom the workers run as when nginx is started by root."""

    user: str
    group: str


@dataclass(frozen=True)
class AddressRate:
    """`burst` requests may come at once; after that `per_second`."""

    per_second: float
    burst: int

    @property
    def rate(self) -> str:
        """As nginx writes it: whole numbers, a second or a minute."""
        if self.per_second >= 1:
            return f"{round(self.per_second)}r/s"
        return f"{max(1, round(self.per_second * 60))}r/m"


@dataclass(frozen=True)
class AddressLimits:
    """Of one client: an IPv4 address, or the /64 network of an IPv6 address. None is no limit.

    Behind a load balancer its networks stand in `trusted_proxies`; else all clients would be one address.
    """

    post: AddressRate | None = None
    get: AddressRate | None = None
    in_flight_max: int | None = None
    trusted_proxies: tuple[str, ...] = ()


NO_LIMITS: Final = AddressLimits()


@dataclass(frozen=True)
class NginxSettings:
    """`folder` holds the pid file and the temp paths; `listen` is host:port; connections are a worker's.

    `in_flight_per_shard` is what the accepted wait for: at 8k/s the last of 512 is answered after 64 ms. Less
    would refuse while the disk has a hiccup, more would only make everybody wait longer.
    """

    folder: Path
    listen: str
    workers: int = 1
    connections_max: int = 8192
    keepalive_connections: int = 1024
    in_flight_per_shard: int = 512
    client_timeout_s: int = 10
    limits: AddressLimits = NO_LIMITS
    tls: Tls | None = None
    run_as: RunAs | None = None


@dataclass(frozen=True)
class Problem:
    """One error that nginx itself answers with. No text here holds a double quote, backslash or dollar."""

    status: int
    title: str
    code: str
    detail: str


_MALFORMED = "The request is not well-formed HTTP/1.0, 1.1 or 2, or its headers or coding can't be read."
# Where a shard has the same code, its title is the same: a problem's title follows its type.
PROBLEMS: Final = (
    Problem(400, "The request is not valid", "invalid_request", _MALFORMED),
    Problem(404, "There is nothing here", "not_found", "There is nothing at this address."),
    Problem(
        405,
        "The method is not allowed here",
        "method_not_allowed",
        "This address does not answer to this method.",
    ),
    Problem(
        408,
        "The body did not arrive in time",
        "request_timeout",
        "The request came too slowly; send it again.",
    ),
    Problem(
        411, "The length is missing", "length_required", "A body needs a Content-Length or chunked encoding."
    ),
    Problem(413, "The body is too large", "payload_too_large", "A body has at most 64 KiB."),
    Problem(414, "The address is too long", "uri_too_long", "The request line has at most 8 KiB."),
    Problem(
        431,
        "The headers are too large",
        "headers_too_large",
        "A header line has at most 8 KiB, a request at most 90 of them.",
    ),
    Problem(
        429,
        "Too many requests",
        "rate_limited",
        "This address asks more often than it may; come again later.",
    ),
    Problem(
        503,
        "The owner of this id is not available",
        "owner_unavailable",
        "The shard that owns this id can't be reached; retry with the same id.",
    ),
    Problem(
        504,
        "The owner of this id did not answer",
        "owner_timeout",
        "The shard did not answer in time; retry with the same id.",
    ),
)


def in_flight_max(settings: NginxSettings, shards: int) -> int:
    """How many requests of a kind (writing, reading) pass at a time.

    Each needs a connection on both sides; beside them are the idle ones to the shards and some newcomers.
    """
    idle = 2 * settings.keepalive_connections + settings.connections_max // 16
    possible = settings.workers * (settings.connections_max - idle) // 4
    return max(1, min(settings.in_flight_per_shard * shards, possible))


def render(settings: NginxSettings, ring: RingFile) -> str:
    """The whole nginx.conf. Shards stand in the order of the ring file, which is the order of their ids."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATE_FOLDER),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - the result is no HTML; every value is ours or a checked path
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("nginx.conf.j2").render(
        folder=settings.folder,
        listen=settings.listen,
        workers=settings.workers,
        connections_max=settings.connections_max,
        files_max=settings.connections_max + _FILES_BESIDE_CONNECTIONS,
        in_flight_max=in_flight_max(settings, len(ring.shards)),
        client_timeout_s=settings.client_timeout_s,
        limits=settings.limits,
        keepalive_connections=settings.keepalive_connections,
        tls=settings.tls,
        run_as=settings.run_as,
        shards=ring.shards,
        ring_version=ring.version,
        holders=HOLDERS,
        problems=PROBLEMS,
    )


def write(settings: NginxSettings, ring: RingFile) -> Path:
    """Writes `<folder>/nginx.conf` and the folders nginx needs, and returns its path. Replaces atomically."""
    for name in TEMP_FOLDERS:
        (settings.folder / name).mkdir(parents=True, exist_ok=True)
    path = settings.folder / "nginx.conf"
    temporary = path.with_suffix(".conf.new")
    temporary.write_text(render(settings, ring))
    temporary.replace(path)
    return path
