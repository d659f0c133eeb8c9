"""`python -m processor`: one processor. Exits 0 after SIGTERM, 1 with a sentence when it can't run."""

from __future__ import annotations

import sys

import structlog
import uvloop

from processor.bootstrap import run
from processor.settings import ProcessorSettings
from tollgate.errors import ConfigurationError
from tollgate.settings import load
from tollgate.telemetry import configure_logging


def main() -> int:
    try:
        settings = load(ProcessorSettings)
    except ConfigurationError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    configure_logging("processor", settings.log_level)
    try:
        uvloop.run(run(settings))
    except ConfigurationError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    except Exception:
        structlog.get_logger().exception("processor_broke", detail="It ends so that it is started anew.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
