"""What Kafka says of one of our topics, and whether it can be trusted with what we give it.

Judging is pure; `look` asks. Blocking, bounded, and nothing is ever changed by it. The rules: the partitions
are those of the contract; what is unread doesn't expire; in a cluster three replicas, of which two have
everything, and no leader that lacks some of it. One node alone holds to its own fsync instead.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without __all__
    AdminClient,
    ConfigEntry,
    ConfigResource,
    ResourceType,
    TopicDescription,
    TopicMetadata,
)

from tollgate.errors import OperationalError
from tollgate.topics import TopicSpec, topic_specs

CLUSTER_REPLICATION: Final = 3
CLUSTER_MIN_ISR: Final = 2

# Where a topic of ours lives is checked only for what loses data when it is otherwise; the rest is the
# operator's.
_CHECKED_CONFIG: Final = ("unclean.leader.election.enable", "cleanup.policy")
_MISSING: Final = frozenset({"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"})
_FORBIDDEN: Final = frozenset({"TOPIC_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED"})


@dataclass(frozen=True)
class SeenTopic:
    """A topic as the brokers describe it. `replication` is that of its least replicated partition."""

    partitions: int
    replication: int
    config: dict[str, str]
    id: str = ""  # another one: deleted and made anew under the same name
    leaderless: int = 0  # partitions
    in_sync_min: int = CLUSTER_REPLICATION  # replicas of the partition that has the fewest

    @property
    def record_bytes_max(self) -> int:
        return int(self.config.get("max.message.bytes", "1048588"))


@dataclass(frozen=True)
class Refused:
    """The brokers answer, and nothing can be known of the topic."""

    reason: str


@dataclass(frozen=True)
class Seen:
    """`embedded`: one node alone, which holds to the rules of the local stack's."""

    embedded: bool
    topics: dict[str, SeenTopic | Refused]


def problems(spec: TopicSpec, seen: SeenTopic, *, embedded: bool) -> list[str]:
    """What is wrong with a topic that exists, one sentence each; empty when it can be used. Pure."""
    found = []
    if seen.partitions != spec.partitions:
        found.append(f"it has {seen.partitions} partitions and must have {spec.partitions}")
    for key in _CHECKED_CONFIG:
        wanted = spec.config.get(key)
        if wanted is not None and seen.config.get(key, wanted) != wanted:
            found.append(f"{key} is {seen.config[key]} and must be {wanted}")
    if spec.config.get("retention.ms") == "-1" and seen.config.get("retention.ms", "-1") != "-1":
        found.append(
            f"retention.ms is {seen.config['retention.ms']} and must be -1: what is unread would expire"
        )
    if not embedded:
        if seen.replication < CLUSTER_REPLICATION:
            found.append(
                f"its replication factor is {seen.replication} and must be at least {CLUSTER_REPLICATION}"
            )
        min_isr = _min_isr(seen)
        if min_isr < CLUSTER_MIN_ISR:
            found.append(f"min.insync.replicas is {min_isr} and must be at least {CLUSTER_MIN_ISR}")
    return found


def unsafe(seen: Seen) -> list[str]:
    """Everything that is wrong with any topic that was looked at, by its name. Pure."""
    wrong = []
    for spec in topic_specs(embedded=seen.embedded):
        found = seen.topics.get(spec.name)
        if isinstance(found, Refused):
            wrong.append(found.reason)
        elif found is not None:
            wrong += [f"topic {spec.name}: {it}" for it in problems(spec, found, embedded=seen.embedded)]
    return wrong


def impairments(seen: SeenTopic) -> list[str]:
    """Why it takes nothing just now, though it is as it must be. Passes when brokers are back. Pure."""
    found = []
    if seen.leaderless:
        found.append(f"{seen.leaderless} of its partitions have no leader")
    if seen.in_sync_min < _min_isr(seen):
        found.append(
            f"a partition has {seen.in_sync_min} replicas in sync and min.insync.replicas is {_min_isr(seen)}"
        )
    return found


def _min_isr(seen: SeenTopic) -> int:
    return int(seen.config.get("min.insync.replicas", "1"))


def admin_client(bootstrap: str) -> AdminClient:
    """Keep it until every future has resolved: they die with it."""
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 2, "reconnect.backoff.max.ms": 500})


def error_name(error: KafkaException | TimeoutError) -> str:
    """A future of the client raises its own errors, and waiting for it TimeoutError."""
    return str(error.args[0].name()) if isinstance(error, KafkaException) else "_TIMED_OUT"


def look(bootstrap: str, names: Sequence[str], timeout_s: float) -> Seen:
    """Raises OperationalError when Kafka doesn't answer in time."""
    admin = admin_client(bootstrap)
    deadline = time.monotonic() + timeout_s
    try:
        cluster = admin.list_topics(timeout=timeout_s)
        known = {name: cluster.topics[name] for name in names if name in cluster.topics}
        topics = _describe(admin, names, known, deadline)
    except (KafkaException, TimeoutError) as error:
        raise OperationalError(
            f"Kafka at {bootstrap} does not answer ({error_name(error)}). "
            "Check that it runs and that TOLLGATE_KAFKA_BOOTSTRAP is right."
        ) from error
    replicas = {
        broker
        for topic in known.values()
        for partition in topic.partitions.values()
        for broker in partition.replicas
    }
    return Seen(embedded=len(replicas | set(cluster.brokers)) == 1, topics=topics)


def _describe(
    admin: AdminClient, names: Sequence[str], known: Mapping[str, TopicMetadata], deadline: float
) -> dict[str, SeenTopic | Refused]:
    """All of them asked at once."""
    there = [name for name, topic in known.items() if topic.error is None]
    left = max(deadline - time.monotonic(), 0.1)
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in there]
    configs = admin.describe_configs(resources, request_timeout=left) if there else {}
    described = admin.describe_topics(TopicCollection(there), request_timeout=left) if there else {}
    config_of = {resource.name: future for resource, future in configs.items()}
    found: dict[str, SeenTopic | Refused] = {}
    for name in names:
        if name not in known:
            found[name] = Refused(f"Kafka has no topic {name}, or does not let us see it")
        elif (error := known[name].error) is not None:
            found[name] = Refused(_refusal(name, "Describe", error))
        else:
            found[name] = _seen(name, known[name], config_of[name], described[name], left)
    return found


def _seen(
    name: str,
    topic: TopicMetadata,
    config: Future[dict[str, ConfigEntry]],
    described: Future[TopicDescription],
    left: float,
) -> SeenTopic | Refused:
    try:
        entries, topic_id = config.result(left), described.result(left).topic_id
    except KafkaException as error:
        if error.args[0].name() not in _MISSING | _FORBIDDEN:
            raise
        return Refused(_refusal(name, "DescribeConfigs", error.args[0]))
    partitions = topic.partitions.values()
    return SeenTopic(
        partitions=len(partitions),
        replication=min(len(partition.replicas) for partition in partitions),
        config={entry.name: str(entry.value) for entry in entries.values()},
        id=str(topic_id),
        leaderless=sum(partition.leader < 0 for partition in partitions),
        in_sync_min=min(len(partition.isrs) for partition in partitions),
    )


def _refusal(name: str, operation: str, error: KafkaError) -> str:
    if error.name() in _MISSING:
        return f"Kafka has no topic {name}"
    return f"Kafka does not let us see {name} ({error.name()}): allow {operation} on it"
