"""`python -m gateway`: one shard, until it is told to stop."""

from __future__ import annotations

import logging
import os
import sys
from typing import Final

import structlog
import uvloop

from gateway.app import serve
from gateway.settings import GatewaySettings
from tollgate.errors import ConfigurationError, TollgateError
from tollgate.settings import load
from tollgate.telemetry import configure_logging

_EXIT_CANNOT_START: Final = 1
_EXIT_CONFIGURATION: Final = 2


def main() -> int:
    configure_logging("shard")
    try:
        settings = load(GatewaySettings)
        configure_logging(f"shard-{settings.shard.id}", settings.log_level)
        return uvloop.run(serve(settings))
    except TollgateError as error:
        structlog.get_logger().critical("the shard can't run", code=error.code, reason=error.message)
        return _EXIT_CONFIGURATION if isinstance(error, ConfigurationError) else _EXIT_CANNOT_START


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stderr.flush()
    # Threads of the HTTP server may hold a half-sent request for ever: they must not hold the process.
    os._exit(code)
