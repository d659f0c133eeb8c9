"""What every test may ask for; each fixture starts its process only when a test does."""

from __future__ import annotations

pytest_plugins = [
    "tests.fixtures.kafka",
    "tests.fixtures.live_shards",
    "tests.fixtures.postgres",
    "tests.fixtures.simulator",
    "tests.fixtures.stack",
]
