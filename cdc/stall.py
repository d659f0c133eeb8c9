"""Why nothing is shipped just now, for readiness, metrics and the log; None while all is well. Pure.

A refusal stands from the failure until the next delivery, so that the tries between don't flicker. Silence
counts when something has been in flight for longer than Kafka ever takes.
"""

from __future__ import annotations

from typing import Final

SILENT_S: Final = 5.0

# What an operator does about a refusal, by the words that librdkafka has for it: the only thing that is there
# whichever way it tells.
_ACTIONS: Final = {
    "Message size too large": "raise max.message.bytes of payments.changes above the size of this change",
    "Topic authorization failed": "allow Write on payments.changes",
    "Cluster authorization failed": "allow IdempotentWrite on the cluster",
}
_ANY: Final = "check the topic payments.changes and the brokers' logs"


def action_for(reason: str) -> str:
    return next((action for words, action in _ACTIONS.items() if words in reason), _ANY)


class Stall:
    def __init__(self) -> None:
        self._refusal: str | None = None
        self._waiting_since: float | None = None
        self.stuck_at = 0  # the first change that is not delivered while there is a refusal; else 0

    def refused(self, reason: str, delivered: int) -> None:
        """A producer broke, though everything up to `delivered` is in Kafka."""
        self._refusal = (
            f"Kafka does not take change {delivered + 1}: {reason}. Nothing after it is acknowledged. "
            f"Operator action: {action_for(reason)}; it goes on by itself."
        )
        self.stuck_at = delivered + 1

    def moved(self) -> None:
        """Something was delivered."""
        self._refusal = None
        self._waiting_since = None
        self.stuck_at = 0

    def reason(self, topic_trouble: str | None, delivered: int, in_flight: int, now: float) -> str | None:
        if in_flight == 0:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = now
        if self._refusal is not None:
            return self._refusal
        if self._waiting_since is None or now - self._waiting_since < SILENT_S:
            return None
        return (
            f"Kafka has confirmed nothing for {now - self._waiting_since:.0f} s; {in_flight} changes after "
            f"{delivered} wait and go on by themselves. "
            f"{topic_trouble or 'Operator action: check the brokers.'}"
        )
