"""Events on the real stack: as docs/asyncapi.yaml says them, and as the example consumer takes them."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Consumer

from tests.fixtures.asyncapi import CHANNEL, check_event
from tests.fixtures.stack import RunningStack, new_checkout_id
from tests.fixtures.waiting import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(200)]  # the first one starts the stack

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/follow_payments.py"


@contextmanager
def follower(stack: RunningStack, database: Path, output: Path) -> Iterator[None]:
    """The example, from the topic's beginning on; killed at the end."""
    arguments = ("--bootstrap", stack.json.kafka_bootstrap, "--group", f"test-{uuid4().hex}")
    with output.open("w") as written:
        process = subprocess.Popen(
            (sys.executable, str(EXAMPLE), *arguments, "--database", str(database)),
            stdout=written,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
        assert process.poll() is None, output.read_text()
    finally:
        process.kill()
        process.wait(10)


def wait_for_line(output: Path, line: str) -> None:
    wait_until(lambda: line in output.read_text(), line)


def test_the_example_consumer_acts_once_on_each_event_however_often_it_is_delivered(
    stack: RunningStack, tmp_path: Path
) -> None:
    database, output = tmp_path / "database", tmp_path / "output"
    paid, declined = new_checkout_id(), new_checkout_id()
    with follower(stack, database, output):
        assert stack.pay(paid).status == 202
        assert stack.pay(declined, payment_method="pm_declined").status == 202
        for checkout_id, told in (
            (paid, "v3  tollgate.payment.succeeded: ship the goods"),
            (declined, "v3  tollgate.payment.failed: ask for another way to pay"),
        ):
            wait_for_line(output, f"/{checkout_id}  {told}")
    again = tmp_path / "again"
    with follower(stack, database, again):
        wait_for_line(again, f"/{declined}  v3  tollgate.payment.failed: repeat")
    with sqlite3.connect(database) as known:
        rows = known.execute(
            "SELECT what FROM to_do WHERE subject LIKE ? OR subject LIKE ? ORDER BY what",
            (f"%/{paid}", f"%/{declined}"),
        ).fetchall()
    assert rows == [("ask for another way to pay",), ("ship the goods",)]


def test_what_is_in_the_topic_is_what_the_document_says(stack: RunningStack) -> None:
    checkout_id = new_checkout_id()
    assert stack.pay(checkout_id).status == 202
    key = f"{stack.json.merchant}/{checkout_id}".encode()
    consumer = Consumer(
        {
            "bootstrap.servers": stack.json.kafka_bootstrap,
            "group.id": uuid4().hex,
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([CHANNEL["address"]])
    types: list[str] = []

    def has_come() -> bool:
        for message in consumer.consume(500, timeout=0.1):
            assert message.error() is None
            if message.key() == key:
                headers = {
                    name: value
                    for name, value in dict(message.headers() or ()).items()
                    if isinstance(value, bytes)
                }
                types.append(check_event(key, headers, message.value() or b"").get_type())
        return "tollgate.payment.succeeded" in types

    try:
        wait_until(has_come, "the payment's last event")
    finally:
        consumer.close()
    assert [name.removeprefix("tollgate.payment.") for name in types] == [
        "pending",
        "processing",
        "succeeded",
    ]
