"""docs/asyncapi.yaml says what the relay sends: every type, attribute and field, and no other."""

from __future__ import annotations

import json
from functools import partial
from itertools import count
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from gateway.openapi.document import document
from processor.event import event_record
from processor.operation_request import Accepted, Wanted
from processor.patience import Health
from processor.psp.interface import OperationKind
from processor.relay import Relay, RelayPolicy
from processor.storage.database import connect
from processor.storage.payments import SLICES
from processor.storage.requests import request_operation, update_payment
from tests.fixtures.asyncapi import CHANNEL, DOCUMENT, MESSAGE, SCHEMAS, check_event
from tests.fixtures.changes import accepted_payment, change_record
from tests.integration.processor.asking import CANCEL, CAPTURE, REFUND, drain
from tests.integration.processor.conftest import Bench
from tollgate import topics
from tollgate.local.ports import PortPlan
from tollgate.status import NAME
from tollgate.v1.payment_pb2 import Capture, Payment

_NUMBERS = count(1)


async def pay(bench: Bench, checkout_id: str, script: str, *, manual: bool = False) -> None:
    capture = Capture.CAPTURE_MANUAL if manual else Capture.CAPTURE_AUTOMATIC
    bench.psp.script.append(script)
    await bench.take_in(change_record(accepted_payment(checkout_id, capture=capture)))
    await drain(bench)


async def operate(bench: Bench, checkout_id: str, kind: OperationKind, script: str) -> str:
    """The operation's id; it is over when this returns."""
    operation_id = f"op_{next(_NUMBERS):024x}"
    wanted = Wanted(kind, None, "", operation_id)
    bench.psp.script.append(script)
    answer = await request_operation(
        bench.pool, "acme", checkout_id, wanted, operation_id, bench.clock.now_us()
    )
    assert isinstance(answer, Accepted)
    await drain(bench)
    return operation_id


async def everything_that_happens(bench: Bench) -> dict[str, str]:
    """Payments that between them meet every event there is; their operations' ids by a name."""
    await pay(bench, "succeeds", "approve")
    ids = {"refused refund": await operate(bench, "succeeds", REFUND, "decline")}
    ids["refund"] = await operate(bench, "succeeds", REFUND, "approve")
    await pay(bench, "declined", "decline")
    await pay(bench, "waits-for-its-payer", "action")
    await pay(bench, "authorized", "approve", manual=True)
    ids["refused capture"] = await operate(bench, "authorized", CAPTURE, "decline")
    ids["refused cancel"] = await operate(bench, "authorized", CANCEL, "decline")
    ids["capture"] = await operate(bench, "authorized", CAPTURE, "approve")
    await pay(bench, "canceled", "approve", manual=True)
    ids["cancel"] = await operate(bench, "canceled", CANCEL, "approve")
    changed = await update_payment(bench.pool, "acme", "canceled", 5, "Renamed", None, bench.clock.now_us())
    assert isinstance(changed, Payment), changed
    return ids


async def test_every_type_is_sent_as_it_is_described_and_no_other(bench: Bench, migrated_dsn: str) -> None:
    ids = await everything_that_happens(bench)
    relay = Relay(
        partial(connect, migrated_dsn),
        bench.publisher,
        lambda _: None,
        RelayPolicy(500, 0.05),
        bench.clock,
        Health(),
    )
    session = await connect(migrated_dsn)
    await relay.relay_once(session, range(SLICES))
    await session.close()
    sent = bench.publisher.of(topics.EVENTS)
    seen = [check_event(record.key, dict(record.headers), record.value) for record in sent]
    assert {event.get_type() for event in seen} == set(SCHEMAS["type"]["enum"])

    about = {
        (event.get_subject(), event.get_type(), event.get_extension("operationid")): event for event in seen
    }
    for name, operation_id in ids.items():
        kind = name.removeprefix("refused ")
        subject = {"refund": "acme/succeeds", "cancel": "acme/authorized", "capture": "acme/authorized"}[kind]
        ending = f"tollgate.{kind}.{'failed' if name != kind else 'succeeded'}"
        if name == "cancel":
            subject = "acme/canceled"
        if name in ("capture", "cancel"):  # what they come to is the payment's own way
            ending = "tollgate.payment." + {"capture": "succeeded", "cancel": "canceled"}[name]
        assert (subject, f"tollgate.{kind}.pending", operation_id) in about
        assert (subject, ending, operation_id) in about
    own = [event for event in seen if event.get_extension("operationid") is None]
    assert {event.get_type() for event in own} == {
        f"tollgate.payment.{status}"
        for status in (
            "pending",
            "processing",
            "requires_action",
            "authorized",
            "succeeded",
            "failed",
            "updated",
        )
    }


def test_an_attribute_or_field_that_is_not_described_is_found() -> None:
    payment = accepted_payment()
    payment.version = 1
    record = event_record(payment, "tollgate.payment.pending")
    headers = dict(record.headers)
    check_event(record.key, headers, record.value)
    for wrong in (
        headers | {"ce_colour": b"red"},
        headers | {"ce_type": b"tollgate.payment.paid"},
        {name: value for name, value in headers.items() if name != "ce_version"},
    ):
        with pytest.raises(ValidationError):
            check_event(record.key, wrong, record.value)
    document = json.loads(record.value)
    for changed in (document | {"client_secret": "x"}, document | {"version": 0}):
        with pytest.raises(ValidationError):
            check_event(record.key, headers, json.dumps(changed).encode())


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [found for child in node.values() for found in references(child)]
    return [found for child in node for found in references(child)] if isinstance(node, list) else []


def test_the_document_is_whole_and_names_the_topic_as_it_is_made() -> None:
    for reference in references(DOCUMENT):
        found = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
    for schema in (*SCHEMAS.values(), MESSAGE["bindings"]["kafka"]["key"]):
        Draft202012Validator.check_schema(schema)
    [topic] = [spec for spec in topics.topic_specs(embedded=False) if spec.name == topics.EVENTS]
    assert (CHANNEL["address"], CHANNEL["bindings"]["kafka"]["partitions"]) == (topic.name, topic.partitions)
    assert topic.config["retention.ms"] == str(30 * 24 * 3600 * 1000)
    assert "30 days" in CHANNEL["description"]
    assert DOCUMENT["servers"]["local"]["host"] == f"127.0.0.1:{PortPlan().kafka}"


def test_the_payment_of_an_event_is_the_payment_of_the_http_interface_without_its_secret() -> None:
    openapi = document(["simulator"])["components"]["schemas"]
    told, shown = SCHEMAS["payment"], openapi["Payment"]
    assert [*told["properties"], "client_secret"] == list(shown["properties"])
    assert told["required"] == list(told["properties"])
    assert list(SCHEMAS["operation"]["properties"]) == list(openapi["Operation"]["properties"])
    assert told["properties"]["status"]["enum"] == list(NAME.values())
