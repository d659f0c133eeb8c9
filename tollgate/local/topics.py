"""Creating and checking Kafka's topics: what is missing is made, what exists is never changed, only judged.

The only place outside cdc and processor that speaks to Kafka; blocking, called before anything is started.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from tollgate.errors import ConfigurationError, OperationalError
from tollgate.kafka_topics import (
    CLUSTER_MIN_ISR,
    CLUSTER_REPLICATION,
    Refused,
    SeenTopic,
    admin_client,
    error_name,
    look,
    problems,
)
from tollgate.topics import TopicSpec, topic_specs

_ALREADY_THERE: Final = "TOPIC_ALREADY_EXISTS"
_RETRY_S: Final = 0.1


def has_one_broker(bootstrap: str, timeout_s: float = 5.0) -> bool:
    """Whether a Kafka that runs elsewhere is a single node, which holds to the rules of the embedded one.

    Raises OperationalError when it doesn't answer in time.
    """
    return look(bootstrap, [], timeout_s).embedded


def ensure_topics(bootstrap: str, *, embedded: bool, timeout_s: float = 15.0) -> None:
    """Blocking, idempotent. `embedded`: one node, so replication is 1; else a cluster's rules hold.

    Raises OperationalError when Kafka doesn't answer in time, ConfigurationError naming every problem of
    every topic.
    """
    specs = topic_specs(embedded=embedded)
    admin = admin_client(bootstrap)
    deadline = time.monotonic() + timeout_s
    try:
        existing = set(admin.list_topics(timeout=timeout_s).topics)
        _create(admin, [spec for spec in specs if spec.name not in existing], embedded, timeout_s)
    except (KafkaException, TimeoutError) as error:
        raise OperationalError(
            f"Kafka at {bootstrap} could not be asked about its topics within {timeout_s:g} s "
            f"({error_name(error)}). Check that it runs and that TOLLGATE_KAFKA_BOOTSTRAP is right."
        ) from error
    seen = _seen_whole(bootstrap, [spec.name for spec in specs], deadline)
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


def _seen_whole(bootstrap: str, names: Sequence[str], deadline: float) -> dict[str, SeenTopic]:
    """Asks until every topic is known with all its leaders: a new topic takes a moment to spread."""
    while True:
        left = max(deadline - time.monotonic(), _RETRY_S)
        topics = look(bootstrap, names, left).topics
        whole = {
            name: topic
            for name, topic in topics.items()
            if isinstance(topic, SeenTopic) and not topic.leaderless
        }
        if len(whole) == len(names):
            return whole
        if time.monotonic() > deadline:
            refused = [topic.reason for topic in topics.values() if isinstance(topic, Refused)]
            raise OperationalError(
                f"{'; '.join(refused)}. Check Kafka's rights."
                if refused
                else "Kafka has the topics but names no leader for some partitions. Check that its brokers "
                "are up."
            )
        time.sleep(_RETRY_S)
