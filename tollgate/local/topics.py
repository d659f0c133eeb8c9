"""Creating and checking Kafka's topics: what is missing is made, what exists is never changed, only judged.

The only place outside cdc and processor that speaks to Kafka; blocking, called before anything is started.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without __all__
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from tollgate.errors import ConfigurationError, OperationalError
from tollgate.topics import TopicSpec, topic_specs

CLUSTER_REPLICATION: Final = 3
CLUSTER_MIN_ISR: Final = 2
_ALREADY_THERE: Final = "TOPIC_ALREADY_EXISTS"
_RETRY_S: Final = 0.1

# Where a topic of ours lives is checked only for what loses data when it is otherwise; the rest is the
# operator's.
_CHECKED_CONFIG: Final = ("unclean.leader.election.enable", "cleanup.policy")


@dataclass(frozen=True)
class SeenTopic:
    """A topic as the brokers describe it. `replication` is that of its least replicated partition."""

    partitions: int
    replication: int
    config: dict[str, str]


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
        min_isr = int(seen.config.get("min.insync.replicas", "1"))
        if min_isr < CLUSTER_MIN_ISR:
            found.append(f"min.insync.replicas is {min_isr} and must be at least {CLUSTER_MIN_ISR}")
    return found


def has_one_broker(bootstrap: str, timeout_s: float = 5.0) -> bool:
    """Whether a Kafka that runs elsewhere is a single node, which holds to the rules of the embedded one.

    Raises OperationalError when it doesn't answer in time.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2, "reconnect.backoff.max.ms": 500})
    try:
        return len(admin.list_topics(timeout=timeout_s).brokers) == 1
    except KafkaException as error:
        raise OperationalError(
            f"Kafka at {bootstrap} does not answer ({error.args[0].name()}). "
            "Check that it runs and that TOLLGATE_KAFKA_BOOTSTRAP is right."
        ) from error


def ensure_topics(bootstrap: str, *, embedded: bool, timeout_s: float = 15.0) -> None:
    """Blocking, idempotent. `embedded`: one node, so replication is 1; else a cluster's rules hold.

    Raises OperationalError when Kafka doesn't answer in time, ConfigurationError naming every problem of
    every topic.
    """
    specs = topic_specs(embedded=embedded)
    admin = AdminClient(  # kept until every future has resolved: they die with it
        {"bootstrap.servers": bootstrap, "log_level": 2, "reconnect.backoff.max.ms": 500}
    )
    deadline = time.monotonic() + timeout_s
    try:
        existing = set(admin.list_topics(timeout=timeout_s).topics)
        _create(admin, [spec for spec in specs if spec.name not in existing], embedded, timeout_s)
        seen = _describe(admin, specs, deadline)
    except KafkaException as error:
        raise OperationalError(
            f"Kafka at {bootstrap} could not be asked about its topics within {timeout_s:g} s "
            f"({error.args[0].name()}). Check that it runs and that TOLLGATE_KAFKA_BOOTSTRAP is right."
        ) from error
    wrong = [
        f"topic {spec.name}: {problem}"
        for spec in specs
        for problem in problems(spec, seen[spec.name], embedded=embedded)
    ]
    if wrong:
        raise ConfigurationError(
            f"Kafka's topics can't be used: {'; '.join(wrong)}. Nothing was changed. Correct them by hand; "
            "partitions are fixed for life, so a wrong number there needs an empty topic."
        )


def _create(admin: AdminClient, missing: Sequence[TopicSpec], embedded: bool, timeout_s: float) -> None:
    if not missing:
        return
    replication = 1 if embedded else CLUSTER_REPLICATION
    new = [
        NewTopic(
            spec.name,
            num_partitions=spec.partitions,
            replication_factor=replication,
            config=spec.config if embedded else {"min.insync.replicas": str(CLUSTER_MIN_ISR)} | spec.config,
        )
        for spec in missing
    ]
    for future in admin.create_topics(new, operation_timeout=timeout_s).values():
        try:
            future.result(timeout_s)
        except KafkaException as error:
            if (
                error.args[0].name() != _ALREADY_THERE
            ):  # another process was faster: then it is checked like any
                raise


def _describe(admin: AdminClient, specs: Sequence[TopicSpec], deadline: float) -> dict[str, SeenTopic]:
    """Asks until every topic is known with all its leaders: a new topic takes a moment to spread."""
    while True:
        left = max(deadline - time.monotonic(), _RETRY_S)
        known = admin.list_topics(timeout=left).topics
        if all(
            spec.name in known
            and known[spec.name].partitions
            and all(partition.leader >= 0 for partition in known[spec.name].partitions.values())
            for spec in specs
        ):
            break
        if time.monotonic() > deadline:
            raise OperationalError(
                "Kafka has the topics but names no leader for some partitions. Check that its brokers are up."
            )
        time.sleep(_RETRY_S)
    resources = [ConfigResource(ResourceType.TOPIC, spec.name) for spec in specs]
    configs = {
        resource.name: {entry.name: str(entry.value) for entry in future.result(left).values()}
        for resource, future in admin.describe_configs(resources, request_timeout=left).items()
    }
    return {
        spec.name: SeenTopic(
            partitions=len(known[spec.name].partitions),
            replication=min(len(partition.replicas) for partition in known[spec.name].partitions.values()),
            config=configs[spec.name],
        )
        for spec in specs
    }
