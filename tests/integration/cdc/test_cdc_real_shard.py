"""cdc beside the shard that it was made for: a gateway process, killed and brought back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.gateway_process import GatewayProcess, gateway
from tests.fixtures.waiting import wait_until
from tests.integration.cdc.bench import CdcProcess, assert_complete, running, shipped
from tests.integration.cdc.test_cdc_status import publish
from tollgate.v1.change_pb2 import Change
from tollgate.v1.payment_pb2 import Status
from tollgate.v1.shard_pb2 import StatusUpdate

_SHARD = 21


def is_shipped(shard: GatewayProcess, count: int) -> bool:
    state = shard.log_state()
    return state.acknowledged_sequence == state.durable_sequence == count


@pytest.mark.fault
def test_every_202_of_a_killed_shard_reaches_kafka_and_its_status_comes_back(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    with (
        gateway(tmp_path, _SHARD) as shard,
        running(CdcProcess(shard, kafka_bootstrap, tmp_path / "log")) as cdc,
    ):
        ids = [f"checkout-{number:04}" for number in range(60)]
        for index, checkout_id in enumerate(ids):
            shard.pay(checkout_id)
            if index in (20, 40):
                shard.kill()
                shard.start()
        wait_until(lambda: is_shipped(shard, len(ids)), "everything acknowledged")
        state = shard.log_state()
        records = shipped(kafka_bootstrap, state.incarnation)
        assert_complete(records, len(ids))
        changes = [Change.FromString(record.value) for record in records]
        assert len({change.epoch for change in changes}) == 3
        assert {change.acceptance.checkout_id for change in changes} == set(ids)
        assert cdc.metric("tollgate_cdc_halted") == 0

        snapshot = changes[0].acceptance
        snapshot.version, snapshot.status = 1, Status.STATUS_SUCCEEDED
        publish(kafka_bootstrap, _SHARD, [StatusUpdate(payment=snapshot).SerializeToString()])
        wait_until(lambda: shard.status_of(snapshot.checkout_id) == "succeeded", "the status comes back")
