"""`make kill-rounds`: rounds of kill -9 until `--rounds` of a seed are played, earlier runs included."""

from __future__ import annotations

import sys

import grpc
from confluent_kafka import KafkaException

from tests.fault.campaign import Campaign
from tests.fault.killing.results import Run
from tests.fault.killing.rig import kill_rig
from tollgate.errors import TollgateError

_ROUNDS_A_RIG = 50  # then a new store, a new topic
_BROKEN = (AssertionError, TollgateError, grpc.RpcError, KafkaException)

if __name__ == "__main__":
    campaign = Campaign("kill-rounds", Run, lambda folder, _first: kill_rig(folder), _ROUNDS_A_RIG, _BROKEN)
    sys.exit(campaign.main())
