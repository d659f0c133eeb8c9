"""A shard alone, without Kafka, Postgres or a processor: what got its 200 is in its log after kill -9."""

from __future__ import annotations

import asyncio
import base64
import time
from pathlib import Path

import aiohttp

from tests.fixtures.shard import POLL_S
from tests.fixtures.shard_process import ShardProcess
from tollgate.webhooks.simulator import signed_headers

SECRET = "whsec_" + base64.b64encode(b"a secret of the simulator").decode()
SENDERS = 8


async def test_no_webhook_that_got_its_200_is_lost(tmp_path: Path) -> None:
    shard = ShardProcess(tmp_path)
    shard.start(TOLLGATE_PSP__SIMULATOR__WEBHOOK_SECRET=SECRET)
    taken: list[str] = []

    async def send(session: aiohttp.ClientSession, sender: int) -> None:
        number = 0
        while True:
            event_id = f"evt_{sender}_{number}"
            headers = signed_headers(SECRET, event_id, b'{"n": 1}', time.time())
            url = f"{shard.url}/v1/webhooks/simulator"
            try:
                async with session.post(url, data=b'{"n": 1}', headers=headers) as answer:
                    await answer.read()
                    assert answer.status == 200
            except aiohttp.ClientError:
                return
            taken.append(event_id)
            number += 1

    try:
        async with aiohttp.ClientSession() as session:
            await shard.ready(session)
            senders = [asyncio.create_task(send(session, sender)) for sender in range(SENDERS)]
            async with asyncio.timeout(20):
                while len(taken) < 100:
                    await asyncio.sleep(POLL_S)
            shard.kill()
            await asyncio.gather(*senders)
            shard.start(TOLLGATE_PSP__SIMULATOR__WEBHOOK_SECRET=SECRET)
            await shard.ready(session)
        changes = await shard.changes()
        assert set(taken) <= {change.webhook.event_id for change in changes}
        assert [change.sequence for change in changes] == list(range(1, len(changes) + 1))
        assert SECRET not in shard.log()
    finally:
        shard.kill()
