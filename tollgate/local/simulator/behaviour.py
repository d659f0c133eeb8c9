"""What each `pm_` token makes the simulator do. Pure: the table of the design, as data."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass


class Delivery(enum.Enum):
    """What becomes of an answer once the work is done."""

    ANSWER = "answer"
    ERROR = "error"  # a 500 in its place
    LOST = "lost"  # never sent; the connection is closed in the end
    RESET = "reset"  # the connection is reset


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a payment method executes. `first_delivery` is for the send that executes, not for a replay."""

    decline_code: str | None = None
    delay_ms: int = 0
    unavailable_times: int = 0
    needs_action: bool = False
    tells_later: bool = False  # answers `processing`; a webhook brings the outcome
    first_delivery: Delivery = Delivery.ANSWER


_APPROVES = Behaviour()
_FIXED = {
    "pm_action": Behaviour(needs_action=True),
    "pm_late_webhook": Behaviour(tells_later=True),
    "pm_declined": Behaviour(decline_code="insufficient_funds"),
    "pm_lost": Behaviour(first_delivery=Delivery.LOST),
    "pm_reset": Behaviour(first_delivery=Delivery.RESET),
}
_NUMBERED = re.compile(r"pm_(slow|unavailable)_([0-9]{1,7})")


def behaviour_of(payment_method: str) -> Behaviour:
    """Anything that is not in the table approves."""
    if match := _NUMBERED.fullmatch(payment_method):
        number = int(match[2])
        return Behaviour(delay_ms=number) if match[1] == "slow" else Behaviour(unavailable_times=number)
    return _FIXED.get(payment_method, _APPROVES)
