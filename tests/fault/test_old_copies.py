"""A shard's folder restored from an older copy: what it accepts from then on is shipped like anything else.

The copy counts its openings from where it was taken, so its next opening has the number of one that the lost
folder had too, and gives the same sequences to other payments.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fixtures.gateway_process import GatewayProcess, gateway
from tests.fixtures.waiting import wait_until
from tests.integration.cdc.bench import CdcProcess, Shipped, running, shipped
from tollgate.v1.change_pb2 import Change

pytestmark = pytest.mark.fault

_SHARD = 24


def pay(shard: GatewayProcess, *numbers: int) -> set[str]:
    ids = {f"checkout-{number:04}" for number in numbers}
    for checkout_id in sorted(ids):
        shard.pay(checkout_id)
    return ids


def wait_until_shipped(shard: GatewayProcess) -> None:
    wait_until(lambda: shard.metric("tollgate_unacknowledged_changes") == 0, "everything is shipped")


@contextmanager
def frozen(tailer: CdcProcess) -> Iterator[None]:
    assert tailer.process is not None
    tailer.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        tailer.process.send_signal(signal.SIGCONT)


def ids_of(records: list[Shipped]) -> set[str]:
    return {Change.FromString(record.value).acceptance.checkout_id for record in records}


def test_a_store_restored_from_an_old_copy_ships_what_it_accepts_from_then_on(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    with (
        gateway(tmp_path, _SHARD) as shard,
        running(CdcProcess(shard, kafka_bootstrap, tmp_path / "cdc.log")) as tailer,
    ):
        accepted = pay(shard, *range(5))
        wait_until_shipped(shard)
        shard.kill()
        shutil.copytree(shard.data_dir, copy)
        shard.start()
        accepted |= pay(shard, *range(100, 110))
        wait_until_shipped(shard)
        shard.kill()
        with frozen(tailer):  # all that it sees of the exchange is what there is after it
            shutil.rmtree(shard.data_dir)
            copy.rename(shard.data_dir)
            shard.start()
        accepted |= pay(shard, *range(200, 220))
        wait_until_shipped(shard)
        records = shipped(kafka_bootstrap, shard.log_state().incarnation)
    assert accepted - ids_of(records) == set()
    named = {(record.epoch, record.sequence): record.value for record in records}
    assert {named[record.epoch, record.sequence] for record in records} == {r.value for r in records}, (
        "an epoch and a sequence name one change"
    )
