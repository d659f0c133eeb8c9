"""`python -m processor.risk`: the risk service. Exits 0 after SIGTERM, 1 with a sentence when it can't."""

from __future__ import annotations

import sys

import structlog
import uvloop

from processor.risk.bootstrap import run_risk
from processor.risk.settings import RiskServiceSettings
from tollgate.errors import ConfigurationError
from tollgate.settings import load
from tollgate.telemetry import configure_logging


def main() -> int:
    try:
        settings = load(RiskServiceSettings)
        configure_logging("risk", settings.log_level)
        uvloop.run(run_risk(settings))
    except ConfigurationError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    except Exception:
        structlog.get_logger().exception("risk_broke", detail="It ends so that it is started anew.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
