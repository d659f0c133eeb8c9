"""What the simulator tells of an execution by webhook. Pure.

`{"id", "type": "charge", "charge": …}` for how a charge stands, `{"id", "type": "operation", "operation": …,
"idempotency_key"}` for what an operation came to; both as they are answered.
"""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from tollgate.local.simulator.charges import Execution


def event_of(execution: Execution) -> tuple[str, bytes]:
    """Its id, the same whenever it is made, and its body."""
    event_id = f"evt_{hashlib.sha256(execution.key.encode()).hexdigest()[:32]}"
    event: dict[str, Any] = {"id": event_id}
    if execution.charge is None:
        event |= {"type": "charge", "charge": execution.answer}
    else:
        event |= {"type": "operation", "operation": execution.answer, "idempotency_key": execution.key}
    return event_id, orjson.dumps(event)
