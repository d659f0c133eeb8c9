"""`make campaign-mutations`: whether a storm and `tollgate verify` find deliberate bugs.

Each mutation of HUNTS gets storms, with one seed after another, of those kinds of fault that can bring its
bug to light, until something is found. One that nothing finds within `--storms` is a gap in the proof: exit
code 1. With `--control` the same storms meet the sources as they are, and whatever is found is the failure.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import machine
from tests.fault.storm.mutated import PATCHES, mutated_tree
from tests.fault.storm.plan import Kind
from tests.fault.storm.round import PER_SECOND, Broken, Storm

_RESULTS: Final = Path(__file__).parents[3] / "benchmarks/results/campaign-mutations.json"
_REST_S: Final = 60.0  # what a bug has lost never comes to rest
_FOUND_MAX: Final = 3  # kept of what was found


@dataclass(frozen=True)
class Hunt:
    kinds: tuple[Kind, ...]
    budget: float | None = None
    per_second: float = PER_SECOND


HUNTS: Final = {
    "ack_before_fsync": Hunt((Kind.POWER_CUT,)),
    "flush_without_sync": Hunt((Kind.POWER_CUT,)),
    "cursor_before_delivery": Hunt((Kind.KILL, Kind.STALL, Kind.REFUSE)),
    "producer_without_acks": Hunt((Kind.KILL, Kind.STALL, Kind.REFUSE)),
    "offsets_before_intake": Hunt((Kind.KILL, Kind.FREEZE, Kind.ROLLING)),
    "resend_with_a_new_key": Hunt((Kind.PSP, Kind.KILL)),
    "lost_outbox_row": Hunt((Kind.KILL,)),
    "budget_per_process": Hunt((Kind.PSP,), budget=2.0, per_second=2.5),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make campaign-mutations", description=__doc__)
    parser.add_argument("names", nargs="*", default=list(HUNTS), help="as in tests/mutations, without .patch")
    parser.add_argument("--seconds", type=float, default=45.0, help="of each storm")
    parser.add_argument("--storms", type=int, default=4, help="for each mutation, at most")
    parser.add_argument("--control", action="store_true", help="one storm each, and no mutation")
    parser.add_argument("--results", type=Path, default=_RESULTS)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the stack is ended on the way out
    found = {}
    for name in options.names:
        hunted = _hunt(name, options.seconds, options.storms, is_control=options.control)
        _keep(options.results, f"control of {name}" if options.control else name, hunted)
        found[name] = hunted["found"]
        _say(f"{name}: {'; '.join(found[name]) or 'nothing was found'}")
    wrong = [name for name in found if bool(found[name]) is options.control]
    _say(f"{len(found) - len(wrong)} of {len(found)} as they should; not so: {', '.join(wrong) or 'none'}")
    return 1 if wrong else 0


def _hunt(name: str, seconds: float, storms: int, *, is_control: bool) -> dict[str, Any]:
    hunt, began = HUNTS[name], time.monotonic()
    found: list[str] = []
    seed = 0
    while not found and seed < (1 if is_control else storms):
        seed += 1
        folder = Path(tempfile.mkdtemp(prefix="mutation-"))
        tree = None if is_control else mutated_tree(PATCHES / f"{name}.patch", folder / "tree")
        try:
            Storm(folder, seconds, tree, hunt.budget, hunt.kinds, hunt.per_second, _REST_S).play(seed, 0)
        except Broken as broken:
            found = [problem[:300] for problem in broken.problems[:_FOUND_MAX]]
        shutil.rmtree(folder)
    return {
        "commit": str(machine.describe()["commit"]),
        "kinds": [str(kind) for kind in hunt.kinds],
        "seed": seed,
        "storm_s": seconds,
        "found": found,
        "took_s": round(time.monotonic() - began),
    }


def _keep(path: Path, name: str, found: dict[str, Any]) -> None:
    hunts: dict[str, Any] = json.loads(path.read_text())["hunts"] if path.exists() else {}
    hunts[name] = found
    path.write_text(json.dumps({"command": "make campaign-mutations", "hunts": hunts}, indent=1) + "\n")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
