"""`make processor-rounds`: a fault at a step of the pipeline, round by round, until `--rounds` of a seed are
played, earlier runs included. One, two and three processors in turn.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path

import aiohttp
import asyncpg
from confluent_kafka import KafkaException

from tests.fault.campaign import Campaign
from tests.fault.effects.results import Run
from tests.fault.effects.rig import Playing, effects_rig
from tollgate.errors import TollgateError

_ROUNDS_A_RIG = 25
_BROKEN = (
    AssertionError,
    TollgateError,
    KafkaException,
    asyncpg.PostgresError,
    aiohttp.ClientError,
    TimeoutError,
    ExceptionGroup,
)


def _rig(folder: Path, first: int) -> AbstractContextManager[Playing]:
    return effects_rig(folder, processors=1 + first // _ROUNDS_A_RIG % 3)


if __name__ == "__main__":
    sys.exit(Campaign("processor-rounds", Run, _rig, _ROUNDS_A_RIG, _BROKEN).main())
