"""`make mutations`: does the simulation find each deliberate bug, and when? The table is in docs/proof.md.

Each mutant has a process of its own, and seeds until one breaks a promise. An alarm is a rule as well:
production itself said that something is wrong which no fault of the world explains.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tests.mutations.loader import mutate
from tests.mutations.mutants import BY_NAME, MUTANTS, Mutant

_ROOT: Final = Path(__file__).parents[2]
_PROOF: Final = _ROOT / "docs/proof.md"
_HEADING: Final = "## Mutations\n"
_END: Final = "<!-- end of mutations -->\n"
_TIMEOUT_S: Final = 600


def hunt(mutant: Mutant, seeds: range, steps: int) -> dict[str, Any]:
    """In this process. What found it, or None, and after how many seeds and steps."""
    mutate(mutant)
    from tests.simulation.play import play

    before = 0
    for seed in seeds:
        played = play(seed, steps)
        if played.broken is not None:
            return {
                "rule": played.broken.rule,
                "what": str(played.broken),
                "seed": seed,
                "steps": before + played.step,
            }
        before += played.step
    return {"rule": None, "what": "", "seed": None, "steps": before}


def hunt_apart(name: str, seeds: range, steps: int) -> dict[str, Any]:
    """In a process of its own."""
    command = [sys.executable, "-m", "tests.mutations", "--one", name]
    command += ["--first", str(seeds.start), "--seeds", str(len(seeds)), "--steps", str(steps)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"mutant {name} could not be hunted: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutations", description=__doc__)
    parser.add_argument("--one", choices=sorted(BY_NAME))
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    if options.one:
        sys.stdout.write(json.dumps(hunt(BY_NAME[options.one], seeds, options.steps)) + "\n")
        return 0
    rows = []
    for mutant in MUTANTS:
        found = hunt_apart(mutant.name, seeds, options.steps)
        rows.append((mutant, found))
        sys.stdout.write(f"{mutant.name:24} {found['rule'] or 'NOT FOUND':12} {found['what'][:110]}\n")
        sys.stdout.flush()
    _write(rows, options)
    return 0 if all(found["rule"] for _, found in rows) else 1


def _write(rows: list[tuple[Mutant, dict[str, Any]]], options: argparse.Namespace) -> None:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=_ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    count = sum(found["rule"] is not None for _, found in rows)
    lines = [
        _HEADING,
        f"`make mutations` on {commit}: {count} of {len(rows)} deliberate bugs (tests/mutations/mutants.py) "
        f"found by the simulation; at most {options.seeds} seeds of {options.steps} steps.\n",
        "| mutant | in | rule of production that it breaks | found by | seed | steps until then |",
        "|---|---|---|---|---|---|",
    ]
    for mutant, found in rows:
        by = found["rule"] or "**not found**"
        seed = "" if found["seed"] is None else found["seed"]
        lines.append(
            f"| {mutant.name} | {mutant.module} | {mutant.breaks} | {by} | {seed} | {found['steps']:,} |"
        )
    text = _PROOF.read_text()
    before, _, rest = text.partition(_HEADING)
    after = rest.partition(_END)[2]
    _PROOF.write_text(before.rstrip("\n") + "\n\n" + "\n".join(lines) + "\n\n" + _END + after)


if __name__ == "__main__":
    sys.exit(main())
