"""A processor whose risk service is a process of its own: away, silent and back. What it can't assess is not
sent, waits, and goes on by itself.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from confluent_kafka import Producer

from tests.fixtures.changes import accepted_payment, change_record
from tests.fixtures.free_port import free_port
from tests.fixtures.processor_process import processor_on
from tests.fixtures.simulator import RunningSimulator
from tests.integration.processor.risk_part import risk_part
from tests.integration.processor.test_adyen_process import ship, until
from tollgate.local import process

STATUS = "SELECT status FROM payments WHERE checkout_id = $1"
# Claimed, put off for longer than any lease, and no call stored.
WAITS = """
SELECT o.claimed_at IS NOT NULL AND o.claimable_at > now() + interval '4 seconds'
    AND NOT EXISTS (SELECT FROM attempts AS a WHERE a.checkout_id = o.checkout_id)
FROM operations AS o WHERE o.checkout_id = $1
"""
HURRY = "UPDATE operations SET claimable_at = now() WHERE checkout_id = $1 AND claimable_at IS NOT NULL"


@pytest.mark.timeout(150)
async def test_payments_wait_for_a_risk_service_that_is_away_or_silent_and_go_on_by_themselves(
    tmp_path: Path, kafka_bootstrap: str, postgres_dsn: str, simulator: RunningSimulator
) -> None:
    producer = Producer({"bootstrap.servers": kafka_bootstrap, "partitioner": "murmur2_random"})
    address, run = f"127.0.0.1:{free_port()}", f"risk-{uuid4().hex[:12]}"
    part = risk_part(tmp_path, postgres_dsn, address, '[deny]\ncustomers = ["customer-bad"]\n')
    settings = {"TOLLGATE_RISK__ADDRESS": address, "TOLLGATE_RISK__TIMEOUT_S": "0.5"}

    def pay(name: str, customer: str = "customer-good") -> str:
        payment = accepted_payment(f"{run}-{name}", now_us=time.time_ns() // 1000)
        payment.customer_id = customer
        ship(producer, change_record(payment))
        return payment.checkout_id

    async with processor_on(tmp_path, postgres_dsn, kafka_bootstrap, simulator.url, **settings) as processor:
        await processor.ready()
        connection = await asyncpg.connect(postgres_dsn, timeout=5)
        running = None
        try:
            first = pay("nobody-there")
            await until(connection, WAITS, True, first)
            running = process.start(part)
            await process.wait_ready(part, running, timeout_s=30)
            await connection.execute(HURRY, first)
            await until(connection, STATUS, "succeeded", first)
            await until(connection, STATUS, "failed", pay("denied", "customer-bad"))

            running.send_signal(signal.SIGSTOP)
            second = pay("silent")
            await until(connection, WAITS, True, second)
            running.send_signal(signal.SIGCONT)
            await until(connection, STATUS, "succeeded", second)
        finally:
            await connection.close()
            if running is not None:
                running.send_signal(signal.SIGCONT)
                await process.stop(part, running)
    effects = [effect["checkout_id"] for effect in (await simulator.ledger())["effects"]]
    assert sorted(one for one in effects if one.startswith(run)) == sorted([first, second])
