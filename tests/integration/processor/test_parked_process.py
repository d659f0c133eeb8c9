"""`tollgate payments parked | resolve` beside a real processor: a payment whose PSP never answers is in doubt
for longer than it may be sent again, waits for a person, and goes on by his word.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from confluent_kafka import Producer

from tests.fixtures.changes import accepted_payment, change_record
from tests.fixtures.processor_process import RunningProcessor, processor_on
from tests.fixtures.simulator import RunningSimulator
from tests.integration.processor.test_adyen_process import POLL_S, ship, until

STATUS = "SELECT status FROM payments WHERE checkout_id = $1"
PARKED = "SELECT parked_reason IS NOT NULL FROM operations WHERE checkout_id = $1"
CALLED = "SELECT count(*) > 1 FROM attempts WHERE checkout_id = $1"


async def command(environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tollgate.cli.main", "payments", *arguments),
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(running.communicate(), 30)
    return running.returncode or 0, said.decode()


async def effects_of(simulator: RunningSimulator, checkout_id: str) -> list[dict[str, Any]]:
    return [e for e in (await simulator.ledger())["effects"] if e["checkout_id"] == checkout_id]


async def shown(processor: RunningProcessor, name: str) -> float:
    async with aiohttp.ClientSession() as session, session.get(f"http://{processor.ops}/metrics") as answer:
        found = re.search(rf"^{name} (\S+)$", await answer.text(), re.MULTILINE)
    assert found, name
    return float(found[1])


@pytest.mark.timeout(150)
async def test_a_payment_that_is_in_doubt_for_too_long_waits_for_a_person_and_ends_by_his_word(
    tmp_path: Path, kafka_bootstrap: str, postgres_dsn: str, simulator: RunningSimulator
) -> None:
    checkout_id = f"parked-{time.time_ns()}"
    producer = Producer({"bootstrap.servers": kafka_bootstrap, "partitioner": "murmur2_random"})
    settings = {"TOLLGATE_PSP__SIMULATOR__REPLAYED_S_MAX": "8", "TOLLGATE_PSP__SIMULATOR__TIMEOUT_S": "0.5"}
    await simulator.set_scenario(lost_answer_rate=1.0)
    async with processor_on(tmp_path, postgres_dsn, kafka_bootstrap, simulator.url, **settings) as processor:
        await processor.ready()
        payment = accepted_payment(checkout_id, now_us=time.time_ns() // 1000)
        ship(producer, change_record(payment))
        connection = await asyncpg.connect(postgres_dsn, timeout=5)
        try:
            await until(connection, PARKED, True, checkout_id)
            assert await connection.fetchval(CALLED, checkout_id), "it was sent again before"
            assert await connection.fetchval(STATUS, checkout_id) == "processing"
            deadline = time.monotonic() + 20
            while await shown(processor, "tollgate_operations_parked_now") != 1:
                assert time.monotonic() < deadline, "the gauge"
                await asyncio.sleep(POLL_S)

            environment = {"TOLLGATE_POSTGRES_DSN": postgres_dsn, "TOLLGATE_KAFKA_BOOTSTRAP": kafka_bootstrap}
            code, listed = await command(environment, "parked")
            assert code == 0, listed
            assert f"acme/{checkout_id} operation payment" in listed
            assert "nothing certain for too long" in listed
            [effect] = await effects_of(simulator, checkout_id)
            code, said = await command(
                environment,
                *("resolve", f"acme/{checkout_id}", "--as", "executed", "--psp-reference", effect["id"]),
                *("--because", "it is in the PSP's ledger", "--yes"),
            )
            assert code == 0, said
            await until(connection, STATUS, "succeeded", checkout_id)
            assert await command(environment, "parked") == (0, "nothing is parked\n")
            # The processor's relay tells it, as it tells every version.
            untold = "SELECT count(*) FROM outbox WHERE published_at IS NULL AND checkout_id = $1"
            await until(connection, untold, 0, checkout_id)
        finally:
            await connection.close()
        assert len(await effects_of(simulator, checkout_id)) == 1
