"""`tollgate verify` over many payments: `make bench-verify [PAYMENTS=1000000]`.

Fills a shard, starts a stack over it without processors, lets its tailer ship every change, writes what the
other witnesses would say, and runs the command as a user would, in a process of its own. Exit 1 when it finds
anything: there is nothing to be found. Raw numbers go to `results/`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.fill.loader import Wanted, fill
from benchmarks.measure import machine
from benchmarks.systems import whole
from benchmarks.systems.system import remove
from benchmarks.verify.accounts import accepted, write_client_log, write_journal, write_rows, write_topics
from cdc.shard_log import ShardLog
from tollgate.errors import OperationalError
from tollgate.local.paths import StackPaths
from tollgate.local.stack_json import read_stack_json

RESULTS: Final = Path(__file__).resolve().parents[1] / "results"
_SHARD: Final = 0
_SEED: Final = 7
_SHIPPED_S: Final = 1200.0
_LOOK_S: Final = 1.0
_MEMORY_LOOK_S: Final = 0.1


def prepare(folder: Path, payments: int) -> Path:
    """Everything that can be there before the stack is. Returns the client log."""
    paths = StackPaths(folder)
    store = paths.shard(_SHARD)
    wanted = Wanted(payments, unshipped=payments, seed=_SEED, settled=False, shipped_bytes_max=1 << 40)
    asyncio.run(fill(store, _SHARD, wanted, lambda count: _say(f"{count} payments in the shard")))
    _say("the PSP's ledger")
    write_journal(accepted(store), paths.simulator / "ledger.journal")
    _say("the client log")
    told = folder / "told.jsonl"
    write_client_log(accepted(store), told)
    return told


def settle(folder: Path, payments: int) -> None:
    """Everything else, and until the shard has heard of it."""
    stack = read_stack_json(StackPaths(folder).stack_json)
    if stack is None:
        raise OperationalError(f"{folder} holds no stack.json.")
    store = StackPaths(folder).shard(_SHARD)
    _say("Postgres")
    asyncio.run(write_rows(accepted(store), stack.postgres_dsn, _SHARD))
    _say("events and statuses")
    write_topics(accepted(store), stack.kafka_bootstrap, _SHARD)
    deadline = time.monotonic() + _SHIPPED_S
    while time.monotonic() < deadline:
        behind = payments - _acknowledged(store)
        unsettled = sum(payment.version == 0 for payment in accepted(store)) if not behind else payments
        _say(f"{behind} to be shipped, {unsettled} to be settled")
        if not behind and not unsettled:
            return
        time.sleep(_LOOK_S)
    raise OperationalError(f"The shard did not come to rest within {_SHIPPED_S:g} s.")


def _acknowledged(store: Path) -> int:
    log = ShardLog(store)
    try:
        return log.look().acknowledged
    finally:
        log.close()


def measure(folder: Path, told: Path) -> dict[str, Any]:
    """Of the command alone, with the processes that it starts: seconds, CPU, the most memory that it had."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    tollgate = Path(sys.executable).with_name("tollgate")
    command = (tollgate, "verify", "--data-dir", folder, "--client-log", told, "--settle", "0", "--json")
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out)
        peak = _peak_until_it_ends(process)
        seconds = time.monotonic() - began
        out.seek(0)
        said = out.read()
    if not said:
        raise OperationalError(f"tollgate verify ended with {process.returncode} and said nothing.")
    found = json.loads(said)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": round(seconds, 1),
        "cpu_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "memory_mib_max": peak,
        "payments": found["payments"],
        "findings": found["findings"],
        "rules": {name: [rule["checked"], rule["found"]] for name, rule in found["rules"].items()},
        "first": [one for rule in found["rules"].values() for one in rule["first"]][:5],
    }


def _peak_until_it_ends(process: subprocess.Popen[bytes]) -> float:
    """MiB resident, of all its processes together."""
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, machine.memory_mib([process.pid]))
        time.sleep(_MEMORY_LOOK_S)
    return round(peak, 1)


def _say(what: str) -> None:
    print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-verify", description=__doc__)
    parser.add_argument("--payments", type=int, default=1_000_000)
    parser.add_argument("--port", type=int, default=18495)
    parser.add_argument("--port-base", type=int, default=18300)
    parser.add_argument("--folder", type=Path, help="on a disk with room; default: a temporary one")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tollgate-verify-", dir=asked.folder))
    folder.chmod(0o755)  # Postgres runs as another user when root starts it
    try:
        told = prepare(folder, asked.payments)
        stack = whole.Stack("verify", folder, asked.port, asked.port_base, 1, 0, "httptools")
        with whole.running(stack):
            settle(folder, asked.payments)
            _say("tollgate verify")
            measured = measure(folder, told)
    finally:
        remove(folder)
    print(file=sys.stderr)
    result = {"at": datetime.now(UTC).isoformat(), "machine": machine.describe(), "verify": measured}
    path = RESULTS / f"verify-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(
        f"{measured['payments']} payments in {measured['seconds']} s ({measured['cpu_s']} s of CPU), at most "
        f"{measured['memory_mib_max']} MiB; {measured['findings']} findings {measured['first']}\n{path}"
    )
    return int(measured["findings"] > 0 or measured["payments"] != asked.payments)


if __name__ == "__main__":
    sys.exit(main())
