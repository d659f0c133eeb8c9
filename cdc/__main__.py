"""`python -m cdc`: one process beside one shard."""

from __future__ import annotations

import sys

import uvloop

from cdc.bootstrap import serve
from cdc.settings import Settings
from tollgate.errors import ConfigurationError
from tollgate.settings import load
from tollgate.telemetry import configure_logging


def main() -> int:
    try:
        settings = load(Settings)
    except ConfigurationError as error:
        sys.stderr.write(f"{error.message}\n")
        return 2
    configure_logging(f"cdc-{settings.shard.id}", settings.log_level)
    uvloop.run(serve(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
