"""`make kill-rounds`: rounds of kill -9 until `--rounds` of a seed are played, earlier runs included.

Stops at the first broken promise and keeps the folder then, with every log in it.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import grpc
from confluent_kafka import KafkaException

from benchmarks.measure import machine
from tests.fault.killing.results import Results, Run
from tests.fault.killing.rig import kill_rig
from tollgate.errors import TollgateError

_RESULTS = Path(__file__).parents[3] / "benchmarks/results/kill-rounds.json"
_ROUNDS_A_RIG = 50  # then a new store, a new topic
_BROKEN = (AssertionError, TollgateError, grpc.RpcError, KafkaException)


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results = Results.load(options.results)
    here = machine.describe()
    commit = str(here["commit"]) + ("+" if here["uncommitted"] else "")
    next_round = results.played(options.seed)
    while next_round < options.rounds:
        first, end = next_round, min(next_round + _ROUNDS_A_RIG, options.rounds)
        run = results.begin(Run(commit, options.seed, first, f"{here['cores']} x {here['cpu']}"))
        folder = Path(tempfile.mkdtemp(prefix="kill-rounds-"))
        try:
            with kill_rig(folder) as rig:
                for number in range(first, end):
                    played = rig.play(options.seed, number)
                    run.add(played)
                    results.save()
                    _say(f"{number + 1:5}/{options.rounds} {played.summary()}")
        except _BROKEN as failure:
            run.failure = f"round {first + run.rounds}: {failure}"
            results.save()
            _say(f"{run.failure}\nRead the logs in {folder}. The same command plays this round again.")
            return 1
        except (KeyboardInterrupt, SystemExit):
            shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)
        next_round = end
    _say(f"all runs in {options.results.name}: {results.total()}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make kill-rounds", description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path, default=_RESULTS)
    return parser.parse_args()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
