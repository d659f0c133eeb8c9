"""Streams of requests, many of them broken, on real connections to a shard and to nginx before two shards.

`make fuzz WIRE=50000` sends as many requests to each; TOLLGATE_FUZZ_SEED another course of them.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from random import Random

import aiohttp
import pytest

from tests.fixtures.live_shards import LiveShards
from tests.fuzz import wire_messages
from tests.fuzz.wire_check import Answer, converse, documented, judge

SEED = int(os.environ.get("TOLLGATE_FUZZ_SEED", "20261121"))
REQUESTS = int(os.environ.get("TOLLGATE_FUZZ_WIRE", "1000"))
AT_ONCE = 8


@pytest.mark.timeout(60 + REQUESTS // 50)
@pytest.mark.parametrize("front", ["shard", "nginx"])
async def test_whatever_is_sent_every_answer_is_a_right_one(live: LiveShards, front: str) -> None:
    address = live.through if front == "nginx" else live.shards[0]
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}/openapi.json") as response:
        described = documented(await response.read())
    counted: Counter[int] = Counter()
    sent = 0
    numbers = iter(range(REQUESTS))

    async def client() -> None:
        nonlocal sent
        for number in numbers:
            if sent >= REQUESTS:
                return
            stream = wire_messages.stream(Random(f"{SEED}/{front}/{number}"))
            sent += len(stream.messages)
            answers: list[Answer] = []
            try:
                ended = await converse(address, stream, answers)
                counted.update(answer.status for answer in answers)
                judge(stream, answers, ended, described)
            except Exception as error:  # whatever it is, this stream did it
                told = "\n".join(
                    f"{answer.status} {answer.headers} {answer.body[:80]!r}" for answer in answers
                )
                sent_bytes = b"".join(stream.messages)[:4000]
                raise AssertionError(
                    f"{SEED}/{front}/{number} sent {sent_bytes!r} and got\n{told}"
                ) from error

    async with asyncio.TaskGroup() as clients:
        for _ in range(AT_ONCE):
            clients.create_task(client())
    live.assert_sound()
    assert {200, 202, 400, 404, 422} <= counted.keys(), counted
    assert counted[202] > REQUESTS / 20, f"too few sound requests: {counted}"
