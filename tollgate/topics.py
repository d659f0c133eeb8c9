"""Kafka's side of the contract: the topics, their keys' meaning and their fixed shapes. No client is
imported here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

CHANGES: Final = "payments.changes"  # key merchant/checkout id (psp/event id for a webhook), value Change
EVENTS: Final = "payments.events"  # key merchant/checkout id, CloudEvents 1.0 in binary mode
STATUS: Final = "payments.status"  # partition = shard, value StatusUpdate
DLQ: Final = "payments.dlq"  # the failed record's original bytes

SHARDS_MAX: Final = 64

INTAKE_GROUP: Final = "tollgate-intake"  # of all processors, on payments.changes

HEADER_SHARD: Final = "shard"
HEADER_INCARNATION: Final = "incarnation"
HEADER_EPOCH: Final = "epoch"
HEADER_SEQUENCE: Final = "seq"
HEADER_TRACEPARENT: Final = "traceparent"

_DAY_MS: Final = 24 * 60 * 60 * 1000


@dataclass(frozen=True)
class TopicSpec:
    """A topic as it is created: partitions are fixed for life, because the order kept is per partition."""

    name: str
    partitions: int
    config: dict[str, str] = field(default_factory=dict)


def topic_specs(*, embedded: bool) -> list[TopicSpec]:
    """`embedded`: one node, so durability is its own fsync; else a cluster with RF 3 and min ISR 2."""
    partitions = 12 if embedded else 64
    forever = {"retention.ms": "-1", "cleanup.policy": "delete"}
    durable = {"flush.messages": "1"} if embedded else {"min.insync.replicas": "2"}
    clustered = {"unclean.leader.election.enable": "false"}
    return [
        TopicSpec(CHANGES, partitions, forever | durable | clustered),
        TopicSpec(EVENTS, partitions, {"retention.ms": str(30 * _DAY_MS)} | clustered),
        TopicSpec(STATUS, SHARDS_MAX, {"retention.ms": str(7 * _DAY_MS)} | clustered),
        TopicSpec(DLQ, 1, forever | durable | clustered),
    ]


def status_group_prefix(shard: int) -> str:
    """A shard's groups on payments.status begin with it: one for each incarnation of its store."""
    return f"tollgate-status-{shard}-"
