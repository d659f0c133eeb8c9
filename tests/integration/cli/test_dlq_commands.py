"""`tollgate dlq list | show | redrive` on a real Kafka and a real Postgres."""

from __future__ import annotations

import time
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from typer.testing import CliRunner, Result

from processor.changes import ChangeRecord
from processor.dead_letters import dlq_record
from processor.storage.migrate import migrate
from tests.fixtures.changes import accepted_payment, change_record
from tollgate.cli.main import build_app
from tollgate.topics import CHANGES

DEADLINE_S = 20.0


@pytest.fixture
def run_id() -> str:
    return uuid4().hex[:12]


@pytest.fixture
def environment(kafka_bootstrap: str, postgres_dsn: str) -> dict[str, str]:
    migrate(postgres_dsn)
    return {"TOLLGATE_KAFKA_BOOTSTRAP": kafka_bootstrap, "TOLLGATE_POSTGRES_DSN": postgres_dsn}


def set_aside(bootstrap: str, run_id: str, count: int) -> list[ChangeRecord]:
    """As intake does it. The origins are made up; nobody else has such offsets."""
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    base = time.time_ns()
    records = []
    for number in range(count):
        record = change_record(accepted_payment(f"{run_id}-{number:04d}"), offset=base + number)
        outgoing = dlq_record(record, "the currency is unknown")
        producer.produce(
            outgoing.topic, key=outgoing.key, value=outgoing.value, headers=list(outgoing.headers)
        )
        records.append(record)
    assert producer.flush(10) == 0
    return records


def command(environment: dict[str, str], *arguments: str) -> Result:
    return CliRunner().invoke(build_app("dlq"), ["dlq", *arguments], env=environment | {"COLUMNS": "250"})


def delivered(bootstrap: str, run_id: str, wanted: int) -> list[Message]:
    """This run's records in partition 0 of payments.changes, once there are `wanted`."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": uuid4().hex})
    consumer.assign([TopicPartition(CHANGES, 0, 0)])
    found: list[Message] = []
    deadline = time.monotonic() + DEADLINE_S
    try:
        while len(found) < wanted:
            assert time.monotonic() < deadline, f"{len(found)} of {wanted} records"
            for message in consumer.consume(1000, timeout=0.2):
                if message.error() is None and run_id.encode() in bytes(message.key() or b""):
                    found.append(message)
    finally:
        consumer.close()
    return found


def test_what_is_listed_can_be_shown_and_goes_back_to_intake_once_with_the_bytes_it_had(
    kafka_bootstrap: str, run_id: str, environment: dict[str, str]
) -> None:
    records = set_aside(kafka_bootstrap, run_id, 3)
    mine = f"key=*{run_id}*"
    listed = command(environment, "list", "--filter", mine)
    assert (listed.exit_code, listed.stdout.splitlines()[-1]) == (0, "3 waiting")
    origin = f"{CHANGES}/0/{records[0].offset}"
    assert origin in listed.stdout

    shown = command(environment, "show", origin)
    assert shown.exit_code == 0
    assert "the currency is unknown" in shown.stdout
    assert "payment   amount = 1234" in shown.stdout
    assert "café" not in shown.stdout  # what the payer wrote is nobody's business here
    assert command(environment, "show", origin, "--raw").stdout_bytes == records[0].value

    tried = command(environment, "redrive", "--filter", mine, "--dry-run")
    assert (tried.exit_code, tried.stdout.splitlines()[-1]) == (0, "3 would go.")
    first = command(environment, "redrive", "--filter", mine, "--limit", "2")
    assert first.exit_code == 0
    assert "1 stay: beyond the limit." in first.stdout
    second = command(environment, "redrive", "--filter", mine)
    assert "2 stay: delivered" in second.stdout
    assert "1 went back to intake" in second.stdout
    third = command(environment, "redrive", "--filter", mine)
    assert (third.exit_code, third.stdout.splitlines()[-1]) == (0, "Nothing goes.")

    back = delivered(kafka_bootstrap, run_id, 3)
    assert [message.value() for message in back] == [record.value for record in records]
    for message, record in zip(back, records, strict=True):
        headers = [(str(header[0]), header[1]) for header in message.headers() or ()]
        assert headers[: len(record.headers)] == list(record.headers)
        assert dict(headers)["replay_count"] == b"1"
    assert command(environment, "list", "--filter", mine).stdout.splitlines()[-1] == "3 redriven"


def test_a_filter_that_is_none_is_refused_and_nothing_is_sent(environment: dict[str, str]) -> None:
    refused = command(environment, "redrive", "--filter", "acme")
    assert refused.exit_code == 2
    assert "field=pattern" in refused.stderr


def test_a_letter_that_is_not_there_is_said_so(environment: dict[str, str]) -> None:
    missing = command(environment, "show", "payments.changes/0/1")
    assert missing.exit_code == 1
    assert "no dead letter" in str(missing.exception)
