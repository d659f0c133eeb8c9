"""The buckets of a spool, judged by as many processes as there are cores: none needs anything of another.

A look of few records is judged here: a process takes half a second to begin.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from tollgate.cli.proof.judging import Tally, judge
from tollgate.cli.proof.spool import shares_of
from tollgate.cli.proof.testimony import Look
from tollgate.errors import OperationalError

_WORTH_IT_RECORDS: Final = 200_000


def judged_apart(
    buckets: Sequence[Path], look: Look, records: int, worth_it: int = _WORTH_IT_RECORDS
) -> Iterator[Tally]:
    """One a bucket, in their order. Raises OperationalError when a process dies."""
    judge_one = partial(judged, look=look)
    processes = len(os.sched_getaffinity(0))
    if records < worth_it or processes == 1:
        yield from map(judge_one, buckets)
        return
    try:
        with _processes(processes) as pool:
            yield from pool.map(judge_one, buckets)
    except BrokenProcessPool as error:
        raise OperationalError(
            "A process that judged payments was ended from outside, perhaps for want of memory. Try again."
        ) from error


def judged(bucket: Path, look: Look) -> Tally:
    tally = Tally()
    for testimonies in shares_of(bucket):
        judge(testimonies, look, tally)
    return tally


def _processes(number: int) -> Executor:
    """Not forked: Kafka's and RocksDB's clients have threads here. Ctrl-C is this process' to hear."""
    ignore_ctrl_c = (signal.SIGINT, signal.SIG_IGN)
    return ProcessPoolExecutor(
        number, get_context("spawn"), initializer=signal.signal, initargs=ignore_ctrl_c
    )
