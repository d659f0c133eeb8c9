"""Follows payments.events and acts once on each event, whatever is delivered twice or dies in between.

    make up
    .venv/bin/python examples/follow_payments.py          # and in another terminal: tollgate pay --count 20

Kafka delivers at least once. What makes it once is here, and it is all a consumer of Tollgate's events needs:

1. An event is known by (ce_source, ce_id). One that is known already is a repeat, and skipped.
2. A payment has a version (ce_version). An event below the highest one applied is old news, and skipped.
3. The event, its payment's new state and what is to be done about it are one transaction in this consumer's
   own database.
4. Only then is the offset committed. A crash before that brings the event again, as a repeat.

What is to be done is done from the database, so that it is not forgotten either; here it is printed.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, Message

TOPIC: Final = "payments.events"
TO_DO: Final = {
    "tollgate.payment.succeeded": "ship the goods",
    "tollgate.payment.failed": "ask for another way to pay",
    "tollgate.refund.succeeded": "tell the customer",
    "tollgate.refund.failed": "look into it",
}
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS events (source TEXT, id TEXT, type TEXT, at TEXT, PRIMARY KEY (source, id));
CREATE TABLE IF NOT EXISTS payments (subject TEXT PRIMARY KEY, version INTEGER, status TEXT);
CREATE TABLE IF NOT EXISTS to_do (subject TEXT, version INTEGER, what TEXT, PRIMARY KEY (subject, version));
"""
RETENTION: Final = "-31 days"  # the topic's is 30: what is older is not delivered again


def apply(database: sqlite3.Connection, event: dict[str, str], payment: dict[str, Any]) -> str:
    """What came of the event. One transaction: all of it is kept, or none."""
    with database:
        inserted = database.execute(
            "INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?)",
            (event["ce_source"], event["ce_id"], event["ce_type"], event["ce_time"]),
        )
        if not inserted.rowcount:
            return "repeat"
        moved = database.execute(
            "INSERT INTO payments VALUES (?, ?, ?) ON CONFLICT (subject) DO UPDATE "
            "SET version = excluded.version, status = excluded.status WHERE excluded.version > version",
            (event["ce_subject"], payment["version"], payment["status"]),
        )
        if not moved.rowcount:
            return "old news"
        what = TO_DO.get(event["ce_type"])
        if what is None:
            return "noted"
        database.execute(
            "INSERT INTO to_do VALUES (?, ?, ?)", (event["ce_subject"], payment["version"], what)
        )
        return what


def read(message: Message) -> tuple[dict[str, str], dict[str, Any]]:
    """CloudEvents 1.0, Kafka binding, binary mode: attributes are headers, the value is the data."""
    attributes = {name: _text(value) for name, value in dict(message.headers() or ()).items()}
    if attributes.get("ce_specversion") != "1.0":
        raise SystemExit(f"Offset {message.offset()} of {TOPIC} is no CloudEvent 1.0.")
    return attributes, json.loads(message.value() or b"")


def _text(value: str | bytes | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


def follow(bootstrap: str, group: str, database: sqlite3.Connection) -> None:
    """Until it is interrupted. Any number may run with one group and one database."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 10,
        }
    )
    consumer.subscribe([TOPIC])
    try:
        while True:
            for message in consumer.consume(100, timeout=0.5):
                if (error := message.error()) is not None:
                    print(f"Kafka: {error.str()}; it goes on by itself.", flush=True)
                    continue
                event, payment = read(message)
                came_to = apply(database, event, payment)
                print(
                    f"{event['ce_time']}  {event['ce_subject']}  v{event['ce_version']}  "
                    f"{event['ce_type']}: {came_to}",
                    flush=True,
                )
                consumer.commit(message=message, asynchronous=True)
    finally:
        consumer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Follow what happens to payments.")
    parser.add_argument("--bootstrap", help="Kafka's address; default: the local stack's")
    parser.add_argument("--group", default="follow-payments", help="the consumer group")
    parser.add_argument("--database", default="follow-payments.sqlite", help="what is known; may be kept")
    arguments = parser.parse_args()
    bootstrap = arguments.bootstrap
    if bootstrap is None:
        bootstrap = json.loads(Path(".tollgate/stack.json").read_text())["kafka_bootstrap"]
    database = sqlite3.connect(arguments.database)
    database.executescript(SCHEMA)
    with database:
        database.execute(
            "DELETE FROM events WHERE at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', ?)", (RETENTION,)
        )
    try:
        follow(bootstrap, arguments.group, database)
    except KeyboardInterrupt:
        print("Stopped. Started again it goes on where it was.")


if __name__ == "__main__":
    main()
