"""A bug that the rounds must find: an adapter that, without an answer, sends once more under a fresh key.

Loaded by every Python whose PYTHONPATH names this folder, and does nothing in any but a processor.
"""

from __future__ import annotations

import sys

if sys.orig_argv[1:] == ["-m", "processor"]:
    from dataclasses import replace
    from uuid import uuid4

    from processor.psp.interface import Outcome, PspRequest, Unknown
    from processor.psp.simulator import SimulatorPsp

    _send_once = SimulatorPsp.send

    async def _send(self: SimulatorPsp, request: PspRequest, traceparent: str) -> Outcome:
        outcome = await _send_once(self, request, traceparent)
        if isinstance(outcome, Unknown):
            return await _send_once(self, replace(request, idempotency_key=uuid4().hex), traceparent)
        return outcome

    SimulatorPsp.send = _send  # type: ignore[method-assign]
