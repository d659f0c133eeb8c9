"""A Kafka client that is broken for good says so once, in its callback or in place of a message; it is
replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError

from processor.changes import ChangeRecord
from processor.kafka import consumer as module
from processor.kafka.consumer import ChangeConsumer


class FakeMessage:
    def error(self) -> KafkaError:
        return KafkaError(KafkaError._FATAL)


class FakeClient:
    """The first one breaks at its first poll, as librdkafka does when a commit finds the member fenced."""

    def __init__(
        self,
        configuration: dict[str, Any],
        built: list[FakeClient],
        later: Callable[[], None],
        *,
        as_message: bool,
    ) -> None:
        self._on_error = configuration["error_cb"]
        self._built = built
        self._later = later
        self._as_message = as_message
        self.closed = False
        built.append(self)

    def subscribe(self, _topics: list[str], **_callbacks: object) -> None:
        return None

    def poll(self, _timeout_s: float) -> FakeMessage | None:
        if len(self._built) > 1:
            self._later()
        elif self._as_message:
            return FakeMessage()
        else:
            self._on_error(KafkaError(KafkaError._FATAL))
        return None

    def consume(self, _most: int, timeout: float) -> list[FakeMessage]:
        return []

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("as_message", [False, True], ids=["in its callback", "in place of a message"])
async def test_a_client_that_is_broken_for_good_is_closed_and_built_anew(
    monkeypatch: pytest.MonkeyPatch, as_message: bool
) -> None:
    built: list[FakeClient] = []
    again, loop = asyncio.Event(), asyncio.get_running_loop()

    def build(configuration: dict[str, Any]) -> FakeClient:
        return FakeClient(configuration, built, polled, as_message=as_message)

    def polled() -> None:
        loop.call_soon_threadsafe(again.set)

    async def nothing(_records: Sequence[ChangeRecord]) -> None:
        return None

    monkeypatch.setattr(module, "Consumer", build)
    monkeypatch.setattr(module, "_REBUILD_S", 0)
    consumer = ChangeConsumer("127.0.0.1:1", nothing, batch_max=10)
    consumer.start()
    try:
        async with asyncio.timeout(10):
            await again.wait()
    finally:
        await consumer.stop()
    assert [client.closed for client in built] == [True, True]
