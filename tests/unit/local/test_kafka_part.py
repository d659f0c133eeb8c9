"""The embedded broker's description, and a readiness probe that believes nothing but a broker's answer."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tollgate.local.kafka import HOST, answers, kafka_part, render_properties


def properties(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def test_it_listens_on_loopback_only_and_creates_no_topic_by_itself(tmp_path: Path) -> None:
    values = properties(render_properties(tmp_path, 17070, 17071))
    assert values["listeners"] == "PLAINTEXT://127.0.0.1:17070,CONTROLLER://127.0.0.1:17071"
    assert values["advertised.listeners"] == "PLAINTEXT://127.0.0.1:17070"
    assert values["auto.create.topics.enable"] == "false"
    assert values["log.dirs"].startswith(str(tmp_path))


def test_its_heap_is_bounded_and_its_jars_come_from_the_given_cache(tmp_path: Path) -> None:
    part = kafka_part(
        tmp_path / "kafka", tmp_path / "log", port=17070, controller_port=17071, cache=tmp_path / "jars"
    )
    assert "-Xmx256m" in part.argv
    classpath = part.argv[part.argv.index("-cp") + 1].split(":")
    assert all(Path(jar).parent == tmp_path / "jars" for jar in classpath)


@asynccontextmanager
async def server(answer: bytes) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(serve, HOST, 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("answer", "ready"),
    [
        (struct.pack(">iii", 8, 1, 1), True),
        (struct.pack(">iii", 8, 1, 0), False),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", False),
        (struct.pack(">i", 8), False),
        (b"", False),
    ],
    ids=["a broker", "no broker is registered", "not Kafka", "cut", "closed"],
)
async def test_only_a_broker_that_lists_itself_is_ready(answer: bytes, ready: bool) -> None:
    async with server(answer) as port:
        assert await answers(HOST, port) is ready


async def test_nobody_there_is_not_ready() -> None:
    async with server(b"") as port:
        pass
    assert await answers(HOST, port) is False
