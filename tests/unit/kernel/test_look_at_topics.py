"""A look at Kafka's topics is bounded, and says so in one kind of error."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from tollgate import kafka_topics
from tollgate.errors import OperationalError
from tollgate.local import topics as local_topics


class HalfSilentBroker:
    """Lists the topics, then answers nothing: killed in between, say."""

    def list_topics(self, timeout: float) -> Any:
        partition = SimpleNamespace(replicas=[1], isrs=[1], leader=1)
        topic = SimpleNamespace(error=None, partitions={0: partition})
        return SimpleNamespace(brokers={1: None}, topics={"payments.changes": topic})

    def describe_configs(self, resources: list[Any], request_timeout: float) -> dict[Any, Future[Any]]:
        return {resource: Future() for resource in resources}

    def describe_topics(self, topics: Any, request_timeout: float) -> dict[Any, Future[Any]]:
        return {"payments.changes": Future()}


class EmptySilentBroker(HalfSilentBroker):
    def list_topics(self, timeout: float) -> Any:
        return SimpleNamespace(brokers={1: None}, topics={})

    def create_topics(self, topics: list[Any], operation_timeout: float) -> dict[str, Future[Any]]:
        return {topic.topic: Future() for topic in topics}


def test_a_broker_that_stops_answering_half_way_is_one_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kafka_topics, "admin_client", lambda _bootstrap: HalfSilentBroker())
    with pytest.raises(OperationalError, match="Kafka at there:1 does not answer"):
        kafka_topics.look("there:1", ["payments.changes"], timeout_s=0.01)


def test_a_broker_that_stops_answering_while_topics_are_made_is_one_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local_topics, "admin_client", lambda _bootstrap: EmptySilentBroker())
    with pytest.raises(OperationalError, match="Kafka at there:1 could not be asked"):
        local_topics.ensure_topics("there:1", embedded=True, timeout_s=0.01)
