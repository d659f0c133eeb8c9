"""A shard's volume is lost with everything on it: what of the accepted is then in Kafka.

ack=replicated: all of it, whatever was killed before. ack=durable: all but the unshipped tail, and a metric
had shown how long that was.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fixtures.gateway_process import GatewayProcess, gateway
from tests.fixtures.kafka import embedded_kafka
from tests.fixtures.waiting import wait_until
from tests.integration.cdc.bench import CdcProcess, Shipped, running, shipped
from tollgate.local.topics import ensure_topics
from tollgate.v1.change_pb2 import Change

pytestmark = [pytest.mark.fault, pytest.mark.timeout(180)]

SEED = 20261121
_PAYERS = 4
_PAID_BETWEEN_KILLS = 25
_BACK_S = 40.0
_SHARD = 22


@dataclass
class Load:
    """Payers that retry under the same id until they are answered 202 or 200, as a client does."""

    shard: GatewayProcess
    accepted: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def pay(self, payer: int) -> None:
        number = 0
        while not self.ended.is_set():
            checkout_id = f"checkout-{payer}-{number:05}"
            try:
                status, answer = self.shard.post(checkout_id)
            except OSError:
                status, answer = 0, b""
            if status in (200, 202):
                self.accepted.add(checkout_id)
                number += 1
            elif status == 0 or status == 503:
                self.ended.wait(0.02)
            else:
                self.wrong.append(f"{checkout_id}: {status} {answer!r}")
                return

    def wait_for_more(self) -> None:
        goal = len(self.accepted) + _PAID_BETWEEN_KILLS
        wait_until(lambda: len(self.accepted) >= goal or bool(self.wrong), "payments go on", _BACK_S)


@contextmanager
def load(shard: GatewayProcess) -> Iterator[Load]:
    under_way = Load(shard)
    payers = [threading.Thread(target=under_way.pay, args=(number,)) for number in range(_PAYERS)]
    for payer in payers:
        payer.start()
    try:
        yield under_way
    finally:
        under_way.ended.set()
        for payer in payers:
            payer.join()
    assert under_way.wrong == [], f"seed {SEED}"


def checkout_ids(records: list[Shipped]) -> set[str]:
    return {Change.FromString(record.value).acceptance.checkout_id for record in records}


@pytest.mark.skipif("DISK_FAULT_SEEDS" not in os.environ, reason="takes long: make fault-disk")
def test_with_ack_replicated_every_202_survives_the_loss_of_the_volume(tmp_path: Path) -> None:
    kafka = embedded_kafka(tmp_path)
    kafka.start()
    try:
        ensure_topics(kafka.bootstrap, embedded=True)
        replicated = {"TOLLGATE_COMMIT__ACK": "replicated", "TOLLGATE_COMMIT__ACK_WAIT_S": "1"}
        cdc_log = tmp_path / "cdc.log"
        with (
            gateway(tmp_path, _SHARD, replicated) as shard,
            running(CdcProcess(shard, kafka.bootstrap, cdc_log)) as cdc,
            load(shard) as payers,
        ):
            kills = ["shard", "cdc", "kafka", "shard"]
            random.Random(SEED).shuffle(kills)
            for kill in kills:
                payers.wait_for_more()
                if kill == "shard":
                    shard.kill()
                    shard.start()
                elif kill == "cdc":
                    cdc.kill()
                    cdc.start()
                else:
                    kafka.kill()
                    assert_it_says_so(shard, min(payers.accepted))
                    kafka.start()
            payers.wait_for_more()
            shard.lose_the_volume()
            accepted = set(payers.accepted)
            cdc.kill()
        in_kafka = checkout_ids(shipped(kafka.bootstrap, None))
    finally:
        kafka.kill()
    assert len(accepted) > _PAID_BETWEEN_KILLS * 4
    lost = sorted(accepted - in_kafka)
    assert not lost, f"seed {SEED}: {len(lost)} of {len(accepted)} accepted payments are lost: {lost[:5]}"


def assert_it_says_so(shard: GatewayProcess, proven: str) -> None:
    """Kafka is down: new payments are refused and not stored, proven ones are answered as ever."""
    wait_until(lambda: shard.metric("tollgate_replication_silent") == 1, "the silence is noticed", _BACK_S)
    last = shard.metric("tollgate_last_sequence")
    assert shard.post("checkout-while-silent")[0] == 503
    assert shard.metric("tollgate_last_sequence") == last
    assert shard.post(proven)[0] == 200
    assert shard.get(proven) == 200


def test_with_ack_durable_the_unshipped_tail_is_lost_and_a_metric_has_shown_its_size(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    shipped_ids = [f"checkout-{number:04}" for number in range(20)]
    tail = [f"checkout-{number:04}" for number in range(20, 27)]
    with gateway(tmp_path, _SHARD) as shard:
        with running(CdcProcess(shard, kafka_bootstrap, tmp_path / "cdc.log")):
            for checkout_id in shipped_ids:
                shard.pay(checkout_id)
            wait_until(lambda: shard.metric("tollgate_unacknowledged_changes") == 0, "all is shipped")
        incarnation = shard.log_state().incarnation
        for checkout_id in tail:
            shard.pay(checkout_id)
        assert shard.metric("tollgate_unacknowledged_changes") == len(tail)
        shard.lose_the_volume()
        shard.start()
        assert shard.log_state().incarnation != incarnation
        assert {shard.get(checkout_id) for checkout_id in tail} == {503}, "no Ledger is there to say no"
        in_kafka = checkout_ids(shipped(kafka_bootstrap, incarnation))
    assert in_kafka == set(shipped_ids)
