"""What every test may ask for; each fixture starts its process only when a test does."""

from __future__ import annotations

import os

from hypothesis import settings

# A process that tests start is a fork for a moment, in which gRPC's own handlers have crashed (a SIGSEGV in
# grpcio's event_engine before the exec); nothing that forks here uses gRPC on. Read when gRPC is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# How long one example takes depends on who else is on the machine: no test is about that.
settings.register_profile("tollgate", deadline=None)
settings.load_profile("tollgate")

pytest_plugins = [
    "tests.fixtures.faulty_disk",
    "tests.fixtures.kafka",
    "tests.fixtures.live_shards",
    "tests.fixtures.postgres",
    "tests.fixtures.side_by_side",
    "tests.fixtures.simulator",
    "tests.fixtures.stack",
]
