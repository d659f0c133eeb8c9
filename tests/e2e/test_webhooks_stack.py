"""Webhooks on the whole stack, from the simulator through nginx to the payment and back to its reader."""

from __future__ import annotations

import json
import os
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from tests.fixtures.stack import RunningStack, new_checkout_id
from tests.fixtures.waiting import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(200)]
campaign = pytest.mark.skipif("KAFKA_FAULT_SEEDS" not in os.environ, reason="`make fault-kafka` runs it")


def visit(url: str, outcome: str) -> None:
    address = urlsplit(url)
    connection = HTTPConnection(address.netloc, timeout=10)
    try:
        connection.request("POST", address.path, f"outcome={outcome}")
        assert connection.getresponse().status == 200
    finally:
        connection.close()


def test_what_no_answer_told_comes_by_webhook(stack: RunningStack) -> None:
    late, held, asked = new_checkout_id(), new_checkout_id(), new_checkout_id()
    assert stack.pay(late, payment_method="pm_late_webhook").status == 202
    assert stack.pay(held, payment_method="pm_late_webhook", capture="manual").status == 202
    assert stack.pay(asked, payment_method="pm_action").status == 202
    wait_until(lambda: stack.status_of(asked) == "requires_action", "its payer is asked for")
    visit(stack.request("GET", f"/v1/payments/{asked}").json["next_action"]["url"], "decline")
    wait_until(lambda: stack.status_of(asked) == "failed", "the payer declined")
    wait_until(lambda: stack.status_of(late) == "succeeded", "its webhook has come")
    wait_until(lambda: stack.status_of(held) == "authorized", "its webhook has come")
    assert [effect["type"] for effect in stack.effects(late)] == ["charge"]
    assert [effect["type"] for effect in stack.effects(held)] == ["authorization"]
    assert stack.effects(asked) == []


@campaign
def test_a_webhook_that_comes_while_kafka_and_postgres_are_gone_is_not_lost(stack: RunningStack) -> None:
    checkout_id = new_checkout_id()
    assert stack.pay(checkout_id, payment_method="pm_late_webhook").status == 202
    wait_until(lambda: stack.status_of(checkout_id) == "processing", "the PSP has it")
    killed = {part: stack.kill(part) for part in ("kafka", "postgres")}
    wait_until(lambda: len(stack.effects(checkout_id)) == 1, "the PSP has executed it")
    for part, pid in killed.items():
        stack.wait_until_back(part, pid)
    wait_until(lambda: stack.status_of(checkout_id) == "succeeded", "its webhook has come", timeout_s=60)
    assert len(stack.effects(checkout_id)) == 1


def test_nobody_else_can_speak_for_a_psp(stack: RunningStack) -> None:
    event = json.dumps({"id": "evt_1", "type": "charge"}).encode()
    forged = {"webhook-id": "evt_1", "webhook-timestamp": "1790000000", "webhook-signature": "v1,AAAA"}
    answer = stack.request("POST", "/v1/webhooks/simulator", event, forged)
    assert (answer.status, answer.json["code"]) == (401, "unauthorized")
    assert stack.request("POST", "/v1/webhooks/nobody", event, forged).status == 404
    wrong = stack.request("GET", "/v1/webhooks/simulator")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
