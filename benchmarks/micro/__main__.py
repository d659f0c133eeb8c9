"""Prints nanoseconds an operation for every step, and writes them to `benchmarks/results/`."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measure import machine
from benchmarks.micro import cases
from benchmarks.micro.timing import REPEATS, Case, measure
from benchmarks.systems.builds import BUILT

RESULTS = Path(__file__).resolve().parents[1] / "results"
GROUPS = ("admission", "json", "ring", "commit", "handler")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.micro", description=__doc__)
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], default=[], metavar="GROUP")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--no-result", action="store_true", help="print only")
    arguments = parser.parse_args()
    BUILT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="micro-", dir=BUILT) as folder:
        disk: dict[str, Any] = {
            "file_system": machine.check_disk(Path(folder)),
            "fdatasync_ms": machine.fsync_ms(Path(folder)),
        }
        rows = []
        print(f"{'ns an operation':52}{'median':>10}{'least':>10}{'most':>10}")
        for group in arguments.groups or GROUPS:
            for case in _cases(group, Path(folder)):
                seen = measure(case, arguments.repeats)
                rows.append(
                    {"name": case.name, "median": seen.median, "least": seen.least, "most": seen.most}
                )
                print(f"{case.name:52}{seen.median:10,.0f}{seen.least:10,.0f}{seen.most:10,.0f}", flush=True)
    if not arguments.no_result:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"micro-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
        command = shlex.join(["python", "-m", "benchmarks.micro", *sys.argv[1:]])
        document = {"command": command, "machine": machine.describe(), "disk": disk, "ns": rows}
        path.write_text(json.dumps(document, indent=1) + "\n")
        print(f"\nRaw numbers: {path.relative_to(RESULTS.parents[1])}")
    return 0


def _cases(group: str, folder: Path) -> Iterator[Case]:
    match group:
        case "admission":
            yield from cases.admission()
        case "json":
            yield from cases.json()
        case "ring":
            yield from cases.ring()
        case "commit":
            yield from cases.commit(folder)
        case _:
            yield from cases.handler(folder)


if __name__ == "__main__":
    sys.exit(main())
