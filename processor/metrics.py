"""What the processor counts and times, hop by hop."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)

CHANGES: Final = Counter(
    "tollgate_intake_changes", "Changes taken in: fresh, repeated, conflict, webhook, refused", ["result"]
)
INTAKE_DELAY: Final = Histogram(
    "tollgate_intake_delay_seconds", "From the shard's commit to Postgres'", buckets=_SECONDS
)
CLAIMED: Final = Counter("tollgate_operations_claimed", "Operations claimed")
IN_FLIGHT: Final = Gauge("tollgate_operations_in_flight", "Operations claimed and not yet concluded")
PSP_CALL: Final = Histogram(
    "tollgate_psp_call_seconds", "One call to a PSP", ["psp", "answer"], buckets=_SECONDS
)
OPERATIONS_ENDED: Final = Counter(
    "tollgate_operations_ended", "Captures, cancels and refunds by how they ended", ["type", "status"]
)
OUTCOMES: Final = Counter("tollgate_outcomes", "Payments moved on by an outcome", ["status"])
ACCEPTANCE_TO_OUTCOME: Final = Histogram(
    "tollgate_acceptance_to_outcome_seconds", "From acceptance to the outcome's commit", buckets=_SECONDS
)
STALE_LEASES: Final = Counter("tollgate_stale_leases", "Answers refused because the lease was lost")
PARKED: Final = Counter("tollgate_operations_parked", "Operations that wait for a person")
ANOMALIES: Final = Counter("tollgate_anomalies", "Contradictions stored for a person", ["kind"])
WEBHOOKS: Final = Counter(
    "tollgate_webhooks",
    "Webhooks by what became of them: applied, known, irrelevant, anomaly, unreadable, refused, unmatched",
    ["psp", "result"],
)
# By one of the processors, NaN at the others: take the max. Counted up to 10,000.
WEBHOOKS_WAITING: Final = Gauge("tollgate_webhooks_waiting", "Webhooks in the inbox that fit nothing yet")
PARKED_NOW: Final = Gauge("tollgate_operations_parked_now", "Operations that wait for a person now")
IN_DOUBT: Final = Gauge("tollgate_operations_in_doubt", "Operations whose call may have had an effect")
IN_DOUBT_OLDEST: Final = Gauge(
    "tollgate_operations_in_doubt_oldest_seconds", "Since the first unheard call of the oldest in doubt"
)
IN_DOUBT_ALARMS: Final = Counter(
    "tollgate_operations_in_doubt_alarms", "Alarms about an operation that is in doubt for 15 minutes"
)
CONFLICTS: Final = Counter("tollgate_payment_conflicts", "Other content under a checkout id that was taken")
PUBLISHED: Final = Counter("tollgate_relay_published", "Records delivered to Kafka", ["topic"])
RELAY_DELAY: Final = Histogram(
    "tollgate_relay_delay_seconds", "From a version's commit to its event's delivery", buckets=_SECONDS
)
BUDGET_SLOTS: Final = Counter(
    "tollgate_psp_budget_slots", "Reserved calls to a PSP: used, forfeited", ["psp", "result"]
)
BUDGET_WAIT: Final = Histogram(
    "tollgate_psp_budget_wait_seconds", "From a reservation to its first slot", ["psp"], buckets=_SECONDS
)
BUDGET_EXHAUSTED: Final = Counter(
    "tollgate_psp_budget_exhausted", "Reservations refused: all is taken up to the horizon", ["psp"]
)
BUDGET_CLAMPED: Final = Counter(
    "tollgate_psp_budget_clamped", "Arrival times too far ahead: Postgres' clock was set back", ["psp"]
)
BUDGET_PER_SECOND: Final = Gauge(
    "tollgate_psp_budget_per_second", "Calls allowed, over all processors", ["psp"]
)
