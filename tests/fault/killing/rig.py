"""One Kafka, one shard and its tailer over many rounds of kill -9 under load.

A round: payers pay, processes are killed and started again as the plan says, the payers end, and when
everything is shipped the shard's log and Kafka must agree, with every accepted payment in both, once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from cdc.change_topic import KafkaChangeTopic
from cdc.shard_log import ShardLog
from cdc.verification import verify
from tests.fault.killing.payers import Payers, paying
from tests.fault.killing.plan import KAFKA, SHARD, TAILER, Kill, kills_of
from tests.fixtures.gateway_process import KEY, GatewayProcess, gateway
from tests.fixtures.kafka import EmbeddedKafka, embedded_kafka
from tests.fixtures.waiting import wait_until
from tests.integration.cdc.bench import CdcProcess, running
from tollgate.local.topics import ensure_topics
from tollgate.v1.change_pb2 import Change
from tollgate.v1.shard_pb2 import ReadChangesRequest
from tollgate.v1.shard_pb2_grpc import ShardStub

_SHARD_ID: Final = 23
_SHIPPED_S: Final = 120.0
_READ_S: Final = 30.0
_WARM: Final = 50  # payments before the first kill, and after the last
_PATIENT: Final = {"TOLLGATE_OVERLOAD__TURN_MS_MAX": "60000"}  # what overload refuses is another test's


@dataclass(frozen=True)
class Round:
    """What one round came to."""

    kills: tuple[Kill, ...]
    accepted: int
    cut: int
    changes: int
    repeats: int
    seconds: float

    def summary(self) -> str:
        kills = " then ".join("+".join(kill.victims) for kill in self.kills)
        return (
            f"{kills:24} {self.accepted:6} accepted {self.cut:3} cut {self.repeats:6} shipped again "
            f"{self.seconds:6.1f} s"
        )


@dataclass
class Rig:
    kafka: EmbeddedKafka
    shard: GatewayProcess
    tailer: CdcProcess
    read: int = 0  # of the log, by the rounds before
    repeats: int = 0

    def play(self, seed: int, number: int) -> Round:
        """Raises AssertionError when a promise is broken."""
        began = time.monotonic()
        kills = kills_of(seed, number)
        with paying(Payers(self.shard.http, KEY, f"round-{number:05}")) as payers:
            payers.wait_for(_WARM)
            for kill in kills:
                time.sleep(kill.after_s)  # the moment is what was drawn
                self._kill(kill.victims)
            payers.wait_for(_WARM)
        wait_until(self._is_shipped, f"round {number}: everything is shipped", _SHIPPED_S)
        changes = self._new_changes()
        repeats, problems = self._verify()
        problems += _not_as_accepted(payers.accepted, changes)
        assert not problems, f"seed {seed}, round {number}, {kills}: {len(problems)}, {problems[:5]}"
        seconds = time.monotonic() - began
        return Round(kills, len(payers.accepted), payers.cut, len(changes), repeats, seconds)

    def _verify(self) -> tuple[int, list[str]]:
        """As `tollgate cdc verify` does, all of log and topic. Returns new repeats, and what is wrong."""
        with closing(ShardLog(self.shard.data_dir)) as log:
            (verdict,) = verify([log], KafkaChangeTopic(self.kafka.bootstrap)).shards
        problems = [str(finding) for finding in verdict.tally.findings]
        if verdict.tally.compared != self.read or verdict.tally.unshipped:
            problems.append(f"of {self.read} changes {verdict.tally.compared} were compared")
        repeats = verdict.tally.repeats - self.repeats
        self.repeats = verdict.tally.repeats
        return repeats, problems

    def _new_changes(self) -> dict[int, bytes]:
        """Every durable change since the last round, as the shard itself reads its log out."""
        found: dict[int, bytes] = {}
        with grpc.insecure_channel(self.shard.grpc) as channel:
            while True:
                request = ReadChangesRequest(from_sequence=self.read + 1, limit=10_000)
                answer = ShardStub(channel).ReadChanges(request, timeout=_READ_S)
                for change in answer.changes:
                    self.read += 1
                    found[self.read] = change
                if self.read >= answer.durable_sequence:
                    return found
                assert answer.changes, f"the shard has no change {self.read + 1}"

    def _kill(self, victims: tuple[str, ...]) -> None:
        """All of them before any is started again."""
        for part in (self.tailer, self.shard, self.kafka):
            if self._name(part) in victims:
                part.kill()
        for part in (self.tailer, self.kafka, self.shard):  # the first is not waited for
            if self._name(part) in victims:
                part.start()

    def _name(self, part: CdcProcess | GatewayProcess | EmbeddedKafka) -> str:
        if part is self.tailer:
            return TAILER
        return SHARD if part is self.shard else KAFKA

    def _is_shipped(self) -> bool:
        state = self.shard.log_state()
        return state.acknowledged_sequence == state.durable_sequence


def _not_as_accepted(accepted: dict[str, int], changes: dict[int, bytes]) -> list[str]:
    """Every accepted payment is in the log once, as it was sent."""
    found: list[str] = []
    amounts: dict[str, int] = {}
    for sequence, raw in changes.items():
        payment = Change.FromString(raw).acceptance
        if payment.checkout_id in amounts:
            found.append(f"{payment.checkout_id} was accepted twice, again as change {sequence}")
        amounts[payment.checkout_id] = payment.amount
    found += [
        f"{checkout_id} was answered 202 and is not in the log as it was sent"
        for checkout_id, amount in accepted.items()
        if amounts.get(checkout_id) != amount
    ]
    return found


@contextmanager
def kill_rig(folder: Path) -> Iterator[Rig]:
    kafka = embedded_kafka(folder)
    kafka.start()
    try:
        ensure_topics(kafka.bootstrap, embedded=True)
        with (
            gateway(folder, _SHARD_ID, _PATIENT) as shard,
            running(CdcProcess(shard, kafka.bootstrap, folder / "cdc.log")) as tailer,
        ):
            yield Rig(kafka, shard, tailer)
    finally:
        kafka.kill()
