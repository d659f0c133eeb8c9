"""The judge of the commit in flight: unready when it waits too long, the end of the process when it hangs.

It is a task on the loop it judges, so it also arms a judge outside of Python (`faulthandler`): a loop that
stands still for as long as a commit may hang is ended, at most a tenth of that later, with a stack trace on
stderr. To arm it is to wait for a thread with Python's lock held: milliseconds on a busy machine, so seldom.
"""

from __future__ import annotations

import asyncio
import faulthandler
import math
from collections.abc import Callable
from typing import Final

import structlog

from gateway.committer import Committer
from gateway.health import Health, Verdict, judge_commit

INTERVAL_S: Final = 0.25

log = structlog.get_logger()


class Watchdog:
    """`on_hung` ends the process. One a committer."""

    def __init__(self, committer: Committer, health: Health, on_hung: Callable[[], None]) -> None:
        self._committer = committer
        self._health = health
        self._on_hung = on_hung

    async def run(self) -> None:
        """Until it is cancelled."""
        loop, armed_at = asyncio.get_running_loop(), -math.inf
        hung_s = self._health.patience.hung_s
        spare_s = hung_s / 10
        try:
            while True:
                if loop.time() - armed_at >= spare_s - INTERVAL_S:  # the next look may be too late
                    armed_at = loop.time()
                    faulthandler.dump_traceback_later(hung_s + spare_s, exit=True)
                self.look()
                await asyncio.sleep(INTERVAL_S)
        finally:
            faulthandler.cancel_dump_traceback_later()

    def look(self) -> None:
        """Who waits for a stalled commit is answered at once: nobody waits without end for a disk."""
        age_s = self._committer.commit_age()
        verdict = judge_commit(age_s, self._health.patience)
        stalled = verdict is not Verdict.WELL
        if stalled and not self._health.stalled:
            log.error("a commit waits for the disk; unready until it is there", seconds=round(age_s, 1))
        self._health.stalled = stalled
        if stalled:
            self._committer.abandon(self._health.reason() or "")
        if verdict is Verdict.HUNG:
            self._on_hung()
