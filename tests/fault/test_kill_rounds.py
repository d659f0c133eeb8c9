"""kill -9 of tailer, shard and Kafka under load: the shard's log and Kafka agree after every round.

The fixed part of the default run; `make kill-rounds` plays as many as asked for.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fault.campaign import Results
from tests.fault.killing.plan import KAFKA, SHARD, TAILER, kills_of
from tests.fault.killing.results import Run
from tests.fault.killing.rig import Round, kill_rig

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]

SEED = 20261164
ROUNDS = 8


def victims(seed: int, rounds: int) -> set[str]:
    kills = (kill for number in range(rounds) for kill in kills_of(seed, number))
    return {victim for kill in kills for victim in kill.victims}


def test_after_every_kill_the_log_and_kafka_agree_record_by_record(tmp_path: Path) -> None:
    assert victims(SEED, ROUNDS) == {SHARD, TAILER, KAFKA}
    with kill_rig(tmp_path) as rig:
        rounds = [rig.play(SEED, number) for number in range(ROUNDS)]
    assert sum(played.cut for played in rounds) > 0, "no kill has met a request under way"
    assert sum(played.repeats for played in rounds) > 0, "no kill has met a batch under way"


def test_a_campaign_goes_on_where_it_was_cut_off_and_counts_add_up_over_commits(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    for commit, rounds in (("first", 3), ("second", 4)):
        results = Results.load("make kill-rounds", path, Run)
        run = results.begin(Run(commit, SEED, results.played(SEED), "a machine"))
        for number in range(run.first, run.first + rounds):
            kills = kills_of(SEED, number)
            run.add(Round(kills, accepted=10, cut=1, changes=10, repeats=2, seconds=1.0))
            results.save()
    results = Results.load("make kill-rounds", path, Run)
    pieces = [(run.commit, run.first, run.rounds) for run in results.runs]
    assert pieces == [("first", 0, 3), ("second", 3, 4)]
    assert results.played(SEED) == 7
    assert results.played(SEED + 1) == 0
    assert results.total().startswith("7 rounds, 1 kills of the kafka, 6 kills of the shard,")
    assert "70 payments accepted, 14 changes shipped again, 0 failures" in results.total()
