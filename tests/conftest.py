"""What every test may ask for; each fixture starts its process only when a test does."""

from __future__ import annotations

from hypothesis import settings

# How long one example takes depends on who else is on the machine: no test is about that.
settings.register_profile("tollgate", deadline=None)
settings.load_profile("tollgate")

pytest_plugins = [
    "tests.fixtures.faulty_disk",
    "tests.fixtures.kafka",
    "tests.fixtures.live_shards",
    "tests.fixtures.postgres",
    "tests.fixtures.simulator",
    "tests.fixtures.stack",
]
