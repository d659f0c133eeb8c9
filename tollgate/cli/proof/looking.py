"""One look: every witness is read, in an order that makes a running system comparable, then all is judged.

1. what clients were told: whatever it speaks of has happened before now, so the others must know it,
2. the shards' stores: what they have is in Kafka, or on its way there,
3. the PSP's ledger: nobody may ask a PSP for what Postgres doesn't know,
4. how far intake is, then Kafka's topics: what it has passed must be in Postgres,
5. Postgres, as of one moment.

What changed while this went on has left a time that is later than the look's beginning in one of them: such a
payment is under way, and only what can't be right at any time is held against it.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tollgate.cli.proof.judging import Tally
from tollgate.cli.proof.judging_apart import judged_apart
from tollgate.cli.proof.leaks import LeakScan
from tollgate.cli.proof.read_client_log import read_told
from tollgate.cli.proof.read_ledger import read_effects
from tollgate.cli.proof.read_logs import read_logs
from tollgate.cli.proof.read_postgres import read_postgres
from tollgate.cli.proof.read_stores import read_stored
from tollgate.cli.proof.read_topics import (
    AttendedChanges,
    read_dead_letters,
    read_events,
    read_statuses,
    taken_by_intake,
)
from tollgate.cli.proof.recorder import Progress, Recorder
from tollgate.cli.proof.spool import Spool
from tollgate.cli.proof.testimony import Look

if TYPE_CHECKING:
    from cdc.shard_log import ShardLog
    from cdc.verification import Verification

# What `tollgate cdc verify` finds, by the promise that it breaks.
_LOG_RULES: Final = {
    "gap": "I3 gap",
    "out of order": "I3 order",
    "misplaced": "I3 order",
    "different": "I3 altered",
    "unexpected": "I3 altered",
    "lost tail": "I1 lost tail",
    "missing": "I4 cursor beyond delivery",
}
LOG_SAYS: Final = {
    "I3 gap": "sequence n+1 follows n in a shard's log",
    "I3 order": "Kafka has a shard's changes in their order, each with its key's",
    "I3 altered": "a change is in Kafka as it is in the log",
    "I1 lost tail": "what Kafka got from a shard is in its log",
    "I4 cursor beyond delivery": "what a shard calls delivered is in Kafka",
}


@dataclass(frozen=True)
class Witnesses:
    """Where they are. `shards` are data folders by shard, `fed` those shards that are told of statuses."""

    merchant: str
    postgres_dsn: str
    kafka_bootstrap: str
    ledger_url: str
    shards: dict[int, Path]
    fed: frozenset[int]
    client_logs: tuple[Path, ...]
    logs: tuple[Path, ...]


def look_once(witnesses: Witnesses, look: Look, leaks: LeakScan, progress: Progress) -> Tally:
    """Blocking; at `look.began_us` or later. Raises OperationalError or RejectedInput when a witness can't be
    read.
    """
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="tollgate-verify-") as folder, Spool(Path(folder)) as spool:
        recorder = Recorder(spool, tally, leaks, progress)
        look = _read(witnesses, look, recorder, tally)
        buckets = spool.buckets()
        for number, judged in enumerate(judged_apart(buckets, look, spool.records), start=1):
            tally.take(judged)
            progress("judging", number, len(buckets))
    return tally


def _read(witnesses: Witnesses, look: Look, recorder: Recorder, tally: Tally) -> Look:
    """The look, with what was learned about its limits."""
    for path in witnesses.client_logs:
        read_told(path, witnesses.merchant, recorder)
    for shard, data_dir in witnesses.shards.items():
        read_stored(shard, data_dir, recorder)
    read_effects(witnesses.ledger_url, recorder)
    _compare_logs(witnesses, recorder, tally)
    events_from_us = read_events(witnesses.kafka_bootstrap, recorder)
    statuses_from_us = read_statuses(witnesses.kafka_bootstrap, recorder)
    open_letters = asyncio.run(read_postgres(witnesses.postgres_dsn, recorder))
    read_dead_letters(witnesses.kafka_bootstrap, open_letters, recorder)
    read_logs(witnesses.logs, recorder)
    return replace(
        look, shards=witnesses.fed, events_from_us=events_from_us, statuses_from_us=statuses_from_us
    )


def _compare_logs(witnesses: Witnesses, recorder: Recorder, tally: Tally) -> None:
    from cdc.change_topic import KafkaChangeTopic
    from cdc.verification import verify

    topic = KafkaChangeTopic(witnesses.kafka_bootstrap)
    taken = taken_by_intake(witnesses.kafka_bootstrap, list(topic.extents()))
    logs = _opened(list(witnesses.shards.values()))
    try:
        found = verify(logs, AttendedChanges(topic, taken, recorder), recorder.progress)
    finally:
        for log in logs:
            log.close()
    _count(found, tally)


def _opened(folders: Sequence[Path]) -> list[ShardLog]:
    from cdc.shard_log import ShardLog

    return [ShardLog(folder) for folder in folders]


def _count(found: Verification, tally: Tally) -> None:
    for shard in found.shards:
        for rule in LOG_SAYS:
            tally.checked[rule] += shard.tally.compared
        for finding in shard.tally.findings:
            where = f"shard {shard.facts.shard}, change {finding.sequence} {finding.key}".rstrip()
            tally.find(_LOG_RULES[finding.problem], where, finding.detail)
