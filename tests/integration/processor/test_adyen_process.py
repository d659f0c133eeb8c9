"""`python -m processor` with Adyen set up: payments and notifications by Kafka, one effect each at Adyen,
and its key nowhere but in what Adyen is sent.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from uuid import uuid4

import asyncpg
from confluent_kafka import Producer

from processor.changes import ChangeRecord
from tests.fixtures.adyen_double import API_KEY, HMAC_KEY, MERCHANT_ACCOUNT, AdyenDouble
from tests.fixtures.changes import accepted_payment, change_record
from tests.fixtures.processor_process import processor_on
from tests.fixtures.webhooks import webhook_record
from tollgate.webhooks.adyen import AdyenWebhooks
from tollgate.webhooks.interface import Verified

POLL_S = 0.02
DEADLINE_S = 40.0
ENDS_AS = {"approves": "succeeded", "resets": "succeeded", "refuses": "failed"}


def ship(producer: Producer, *records: ChangeRecord) -> None:
    for record in records:
        producer.produce(record.topic, key=record.key, value=record.value, headers=list(record.headers))
    assert producer.flush(10) == 0


async def until(connection: asyncpg.Connection, statement: str, wanted: object, *arguments: object) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while (found := await connection.fetchval(statement, *arguments)) != wanted:
        assert time.monotonic() < deadline, f"{found} in place of {wanted}"
        await asyncio.sleep(POLL_S)


async def test_a_processor_pays_at_adyen_once_hears_its_word_and_keeps_its_key_to_itself(
    tmp_path: Path, kafka_bootstrap: str, postgres_dsn: str
) -> None:
    run_id, adyen = uuid4().hex[:12], AdyenDouble()
    await adyen.start()
    key_file = tmp_path / "adyen-api-key"
    key_file.write_text(API_KEY + "\n")
    settings = {
        "TOLLGATE_PSP__ADYEN__API_KEY_FILE": str(key_file),
        "TOLLGATE_PSP__ADYEN__MERCHANT_ACCOUNT": MERCHANT_ACCOUNT,
        "TOLLGATE_PSP__ADYEN__RETURN_URL": "https://shop.example/back",
        "TOLLGATE_PSP__ADYEN__URL": adyen.url,
        "TOLLGATE_PSP__ADYEN__TIMEOUT_S": "1",
        "TOLLGATE_PSP__ADYEN__MAX_PER_SECOND": "50",
        "TOLLGATE_LOG_LEVEL": "DEBUG",
    }
    producer = Producer({"bootstrap.servers": kafka_bootstrap, "partitioner": "murmur2_random"})
    nobody = "http://127.0.0.1:1"  # where other tests' payments go
    try:
        async with processor_on(tmp_path, postgres_dsn, kafka_bootstrap, nobody, **settings) as processor:
            await processor.ready()
            for behaviour in ENDS_AS:
                payment = accepted_payment(f"{run_id}-{behaviour}", now_us=time.time_ns() // 1000)
                payment.psp, payment.payment_method = "adyen", behaviour
                ship(producer, change_record(payment))
            connection = await asyncpg.connect(postgres_dsn, timeout=5)
            ended = "SELECT count(*) FROM payments WHERE checkout_id LIKE $1 AND status = ANY($2::text[])"
            await until(connection, ended, len(ENDS_AS), run_id + "%", ["succeeded", "failed"])
            for body in adyen.notifications:
                verified = AdyenWebhooks([HMAC_KEY]).verify({}, body, now_s=0.0)
                assert isinstance(verified, Verified)
                ship(producer, *(webhook_record(*event, psp="adyen") for event in verified.events))
            heard = "SELECT count(*) FROM webhook_inbox WHERE psp = 'adyen' AND result = 'known'"
            await until(connection, heard, len(ENDS_AS))
            rows = await connection.fetch(
                "SELECT checkout_id, status FROM payments WHERE checkout_id LIKE $1", run_id + "%"
            )
            kept = await connection.fetch(
                "SELECT r.body, a.evidence FROM psp_requests r JOIN attempts a USING (step)"
            )
            await connection.close()
    finally:
        await adyen.stop()
    assert {row["checkout_id"].rpartition("-")[2]: row["status"] for row in rows} == ENDS_AS
    paid = sorted(effect.checkout_id for effect in adyen.effects)
    assert paid == sorted(f"{run_id}-{behaviour}" for behaviour in ENDS_AS if behaviour != "refuses")
    assert API_KEY not in (tmp_path / "processor.log").read_text()
    assert API_KEY not in repr(kept)
    assert {call.headers["x-api-key"] for call in adyen.calls} == {API_KEY}
