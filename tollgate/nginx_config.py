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

_TEMPLATE_FOLDER: Final = Path(__file__).resolve().parent.parent / "nginx"
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
class NginxSettings:
    """`folder` holds the pid file and the temp paths; `listen` is host:port."""

    folder: Path
    listen: str
    workers: int = 1
    connections_max: int = 8192
    keepalive_connections: int = 1024
    in_flight_per_shard: int = 512
    tls: Tls | None = None
    run_as: RunAs | None = None


@dataclass(frozen=True)
class Problem:
    """One error that nginx itself answers with. No text here holds a double quote, backslash or dollar."""

    status: int
    title: str
    code: str
    detail: str


_MALFORMED = "The request is not well-formed HTTP, or its headers can't be read."
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
    Problem(500, "nginx met a defect of its own", "internal", "Retry with the same id."),
    Problem(
        501,
        "The transfer encoding is not known",
        "not_implemented",
        "Bodies come with a Content-Length or chunked.",
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
    Problem(
        505,
        "The HTTP version is not supported",
        "http_version_not_supported",
        "HTTP/1.0, 1.1 and 2 are spoken here.",
    ),
)


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
        in_flight_max=settings.in_flight_per_shard * len(ring.shards),
        keepalive_connections=settings.keepalive_connections,
        tls=settings.tls,
        run_as=settings.run_as,
        shards=ring.shards,
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
