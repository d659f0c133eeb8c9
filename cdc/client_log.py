"""What librdkafka tells of its troubles, said once an outage and not with every try."""

from __future__ import annotations

from typing import Final

import structlog
from confluent_kafka import KafkaError

from tollgate.clock import Clock

_QUIET_S: Final = 30.0

log = structlog.get_logger()


class ClientErrors:
    """An `error_cb` for errors that pass by themselves. The same one is said again after half a minute."""

    def __init__(self, client: str, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._said: dict[str, float] = {}

    def __call__(self, error: KafkaError) -> None:
        now = self._clock.monotonic()
        name = error.name()
        if now >= self._said.get(name, now):
            self._said[name] = now + _QUIET_S
            log.warning("kafka_trouble", client=self._client, error=name, detail=error.str())
