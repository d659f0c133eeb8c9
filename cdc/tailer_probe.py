"""What a running cdc process says of itself, asked over its ops address; None when it doesn't answer."""

from __future__ import annotations

import json
import urllib.request
from http.client import HTTPException
from typing import Final, NamedTuple
from urllib.error import HTTPError

from prometheus_client.parser import text_string_to_metric_families

_TIMEOUT_S: Final = 2.0


class TailerFacts(NamedTuple):
    """`delivered` is ahead of what the shard has stored as acknowledged by a call at most."""

    not_ready: str | None  # why; None when ready
    is_halted: bool
    epoch: int
    delivered: int
    in_flight: int
    status_waiting: int


def probe(ops: str) -> TailerFacts | None:
    """Blocking, bounded."""
    try:
        not_ready = _not_ready(ops)
        with urllib.request.urlopen(f"http://{ops}/metrics", timeout=_TIMEOUT_S) as answer:
            numbers = {
                sample.name: sample.value
                for family in text_string_to_metric_families(answer.read().decode())
                for sample in family.samples
                if not sample.labels
            }
    except (OSError, HTTPException):
        return None
    return TailerFacts(
        not_ready=not_ready,
        is_halted=numbers.get("tollgate_cdc_halted", 0) > 0,
        epoch=int(numbers.get("tollgate_cdc_epoch", 0)),
        delivered=int(numbers.get("tollgate_cdc_acknowledged_sequence", 0)),
        in_flight=int(numbers.get("tollgate_cdc_in_flight_records", 0)),
        status_waiting=int(numbers.get("tollgate_cdc_status_waiting", 0)),
    )


def _not_ready(ops: str) -> str | None:
    try:
        with urllib.request.urlopen(f"http://{ops}/readyz", timeout=_TIMEOUT_S):
            return None
    except HTTPError as error:
        with error:
            return str(json.loads(error.read()).get("detail", "not ready"))
