"""`python -m benchmarks.fill --payments 10000000 --data-dir DIR`: a shard's store, filled offline."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import uvloop
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.fill.loader import Wanted, fill
from tollgate.errors import TollgateError


def main() -> int:
    arguments = _arguments()
    wanted = Wanted(arguments.payments, arguments.unshipped, arguments.seed, not arguments.leave_pending)
    began = time.monotonic()
    columns = (
        TextColumn("payments"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    try:
        with Progress(*columns) as bar:
            task = bar.add_task("fill", total=wanted.payments)
            filled = uvloop.run(
                fill(
                    arguments.data_dir,
                    arguments.shard,
                    wanted,
                    lambda count: bar.update(task, completed=count),
                )
            )
    except TollgateError as error:
        print(f"fill: {error.message}", file=sys.stderr)
        return 1
    print(
        f"{filled.payments} payments in {time.monotonic() - began:.0f} s; "
        f"RocksDB refused {filled.refused} entries for a moment."
    )
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fill", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="the shard's; goes on where it stands")
    parser.add_argument("--payments", type=int, default=1_000_000, help="that the store holds at the end")
    parser.add_argument("--unshipped", type=int, default=0, help="of these, how many no tailer has shipped")
    parser.add_argument("--leave-pending", action="store_true", help="shipped payments stay as accepted")
    parser.add_argument("--shard", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1, help="of the ids; the load generator's --seed")
    arguments = parser.parse_args()
    if not 0 <= arguments.unshipped <= arguments.payments:
        parser.error("--unshipped is at most --payments")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
