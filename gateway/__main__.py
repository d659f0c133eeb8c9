"""`python -m gateway`: one shard, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from contextlib import suppress
from typing import Final

import structlog
import uvloop

from gateway.allocator import keep_freed_memory
from gateway.app import serve
from gateway.settings import GatewaySettings
from tollgate.errors import ConfigurationError, TollgateError
from tollgate.settings import load
from tollgate.telemetry import configure_logging

_EXIT_CANNOT_START: Final = 1
_EXIT_CONFIGURATION: Final = 2


def main() -> int:
    configure_logging("shard")
    keep_freed_memory()
    try:
        settings = load(GatewaySettings)
        configure_logging(f"shard-{settings.shard.id}", settings.log_level)
        # Not uvloop.run: it would cancel the requests that a bounded stop has left behind, and wait for them.
        loop = uvloop.new_event_loop()
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(serve(settings))
    except TollgateError as error:
        structlog.get_logger().critical("the shard can't run", code=error.code, reason=error.message)
        return _EXIT_CONFIGURATION if isinstance(error, ConfigurationError) else _EXIT_CANNOT_START


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    with suppress(OSError):  # the log may be on the disk that is full
        sys.stderr.flush()
    # Without the interpreter's own end: it would wait for a failed store to close and for a disk that hangs.
    os._exit(code)
