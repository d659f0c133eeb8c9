"""What an operator sees of a cdc process. Names are stable."""

from __future__ import annotations

import math
from typing import Final

from prometheus_client import Counter, Gauge

LAG_RECORDS: Final = Gauge("tollgate_cdc_lag_records", "Durable changes whose delivery is not yet known.")
LAG_BYTES: Final = Gauge(
    "tollgate_cdc_lag_bytes",
    "Bytes of these changes; those not read yet at the mean size of those that were.",
)
LAG_SECONDS: Final = Gauge(
    "tollgate_cdc_lag_seconds", "Age of the oldest of these changes, read or not; 0 when there are none."
)
for _lag in (LAG_RECORDS, LAG_BYTES, LAG_SECONDS):
    _lag.set(math.nan)  # not known until the store is open: 0 would say that all is delivered
IN_FLIGHT_RECORDS: Final = Gauge("tollgate_cdc_in_flight_records", "Changes sent and not delivered.")
IN_FLIGHT_BYTES: Final = Gauge("tollgate_cdc_in_flight_bytes", "Bytes of changes sent and not delivered.")
ACKNOWLEDGED: Final = Gauge(
    "tollgate_cdc_acknowledged_sequence", "The last sequence that the shard knows to be delivered."
)
EPOCH: Final = Gauge("tollgate_cdc_epoch", "The opening of the store that is read.")
HALTED: Final = Gauge(
    "tollgate_cdc_halted", "1 when a confirmed gap or a wrong store has stopped the tailer."
)

STALLED: Final = Gauge("tollgate_cdc_stalled", "1 while Kafka takes nothing: /readyz says why.")
STUCK_AT: Final = Gauge(
    "tollgate_cdc_stuck_at_sequence", "The change that Kafka refuses; 0 when it does not."
)
TOPIC_UNUSABLE: Final = Gauge(
    "tollgate_cdc_topic_unusable", "1 while payments.changes is not known to be safe: nothing is shipped."
)
TOPIC_REPLACED: Final = Counter(
    "tollgate_cdc_topic_replaced", "Times payments.changes was another topic than before: replay is needed."
)

PRODUCED: Final = Counter("tollgate_cdc_produced", "Changes handed to the producer, repeats included.")
DELIVERED: Final = Counter("tollgate_cdc_delivered", "Changes by which the delivered prefix has moved.")
REOPENS: Final = Counter("tollgate_cdc_reopens", "Openings of the secondary.", ["reason"])
ASKED: Final = Counter("tollgate_cdc_asked_the_shard", "ReadChanges calls: the secondary was not enough.")
PRODUCER_RESTARTS: Final = Counter("tollgate_cdc_producer_restarts", "New producers after a failure.")

STATUS_APPLIED: Final = Counter("tollgate_cdc_status_applied", "Snapshots that the shard took.")
STATUS_IGNORED: Final = Counter("tollgate_cdc_status_ignored", "Snapshots that the shard already had.")
STATUS_RETRIES: Final = Counter("tollgate_cdc_status_retries", "Calls of ApplyStatus that failed.")
STATUS_WAITING: Final = Gauge("tollgate_cdc_status_waiting", "Snapshots read that the shard can't take now.")
STATUS_REFRESHED: Final = Counter(
    "tollgate_cdc_status_refreshed", "Payments asked of the Ledger because their statuses were missed."
)
STATUS_POSITION_LOST: Final = Counter(
    "tollgate_cdc_status_position_lost", "How often the place in payments.status was gone."
)
DEAD_LETTERS: Final = Counter("tollgate_cdc_dead_letters", "Status records that went to payments.dlq.")
