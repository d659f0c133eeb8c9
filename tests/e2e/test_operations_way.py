"""Captures, cancels, refunds, changes and lists through the real stack, whichever shard is asked."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from tests.fixtures.stack import Answer, RunningStack, new_checkout_id
from tests.fixtures.waiting import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(200)]  # the first one starts the stack


def operate(stack: RunningStack, checkout_id: str, what: str, key: str, **body: object) -> Answer:
    path = f"/v1/payments/{checkout_id}/{what}"
    return stack.request("POST", path, body or None, {"Idempotency-Key": key})


def paid(stack: RunningStack, status: str, **fields: object) -> str:
    checkout_id = new_checkout_id()
    assert stack.pay(checkout_id, **fields).status == 202
    wait_until(lambda: stack.status_of(checkout_id) == status, status)
    return checkout_id


def ended(stack: RunningStack, accepted: Answer) -> dict[str, Any]:
    """The operation as it came to its end."""
    assert accepted.status == 202, accepted
    seen: list[dict[str, Any]] = []

    def has_ended() -> bool:
        told = stack.request("GET", accepted.headers["location"])
        assert told.status == 200, told
        seen.append(told.json)
        return bool(told.json["status"] != "pending")

    wait_until(has_ended, "the operation has ended")
    return seen[-1]


def read(stack: RunningStack, checkout_id: str) -> dict[str, Any]:
    payment: dict[str, Any] = stack.request("GET", f"/v1/payments/{checkout_id}").json
    return payment


def test_a_part_is_captured_and_of_two_refunds_of_all_of_it_one_succeeds(stack: RunningStack) -> None:
    customer = new_checkout_id()
    checkout_id = paid(stack, "authorized", capture="manual", customer_id=customer)
    captured = ended(stack, operate(stack, checkout_id, "capture", "capture-1", amount=1000))
    assert (captured["status"], captured["amount"]) == ("succeeded", 1000)
    wait_until(lambda: stack.status_of(checkout_id) == "succeeded", "captured")
    with ThreadPoolExecutor(2) as threads:
        both = list(threads.map(lambda n: operate(stack, checkout_id, "refunds", f"refund-{n}"), range(2)))
    accepted, refused = sorted(both, key=lambda answer: answer.status)
    assert refused.status in (409, 422), refused
    assert refused.json["code"] in ("invalid_transition", "amount_too_large")
    assert "refund" in refused.json["detail"]
    assert ended(stack, accepted)["status"] == "succeeded"
    wait_until(lambda: stack.status_of(checkout_id) == "refunded", "refunded")
    payment = read(stack, checkout_id)
    assert (payment["captured_amount"], payment["refunded_amount"]) == (1000, 1000)
    assert [(op["type"], op["status"]) for op in payment["operations"]] == [
        ("capture", "succeeded"),
        ("refund", "succeeded"),
    ]
    effects = [(effect["type"], effect["amount"]) for effect in stack.effects(checkout_id)]
    assert effects == [("authorization", 1234), ("capture", 1000), ("refund", 1000)]
    page = stack.request("GET", f"/v1/payments?{urlencode({'customer_id': customer, 'status': 'refunded'})}")
    assert page.json == {"data": [payment], "next_cursor": None}


def test_the_same_key_again_is_the_same_operation_with_one_effect(stack: RunningStack) -> None:
    checkout_id = paid(stack, "succeeded")
    with ThreadPoolExecutor(4) as threads:
        answers = list(
            threads.map(lambda _: operate(stack, checkout_id, "refunds", "once", amount=34), range(8))
        )
    assert sorted(answer.status for answer in answers) == [200] * 7 + [202]
    assert len({answer.json["id"] for answer in answers}) == 1
    assert operate(stack, checkout_id, "refunds", '"once"', amount=34).status == 200
    other = operate(stack, checkout_id, "refunds", "once", amount=35)
    assert (other.status, other.json["code"]) == (422, "idempotency_key_reused")
    wait_until(lambda: stack.status_of(checkout_id) == "partially_refunded", "refunded in part")
    assert [effect["type"] for effect in stack.effects(checkout_id)] == ["charge", "refund"]


def at_the_page(stack: RunningStack, checkout_id: str, method: str, said: str = "") -> bytes:
    """What the payer is shown where the payment sends him."""
    action = read(stack, checkout_id)["next_action"]
    assert action["type"] == "redirect"
    page = urlsplit(action["url"])
    connection = HTTPConnection(page.netloc, timeout=10)
    try:
        connection.request(method, page.path, said or None)
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("said", "capture", "status", "effects"),
    [
        ("outcome=approve", "automatic", "succeeded", ["charge"]),
        ("outcome=approve", "manual", "authorized", ["authorization"]),
        ("outcome=decline", "automatic", "failed", []),
    ],
)
def test_a_payment_goes_on_as_its_payer_decides_on_the_page(
    stack: RunningStack, said: str, capture: str, status: str, effects: list[str]
) -> None:
    checkout_id = paid(stack, "requires_action", payment_method="pm_action", capture=capture)
    at_the_page(stack, checkout_id, "POST", said)
    wait_until(lambda: stack.status_of(checkout_id) == status, status)
    assert read(stack, checkout_id)["next_action"] is None
    assert [effect["type"] for effect in stack.effects(checkout_id)] == effects


def test_a_payment_that_waits_for_its_payer_shows_him_where_and_can_be_canceled(stack: RunningStack) -> None:
    checkout_id = paid(stack, "requires_action", payment_method="pm_action")
    assert b"Confirm the payment" in at_the_page(stack, checkout_id, "GET")
    assert ended(stack, operate(stack, checkout_id, "cancel", "cancel-1"))["status"] == "succeeded"
    wait_until(lambda: stack.status_of(checkout_id) == "canceled", "canceled")
    again = operate(stack, checkout_id, "cancel", "cancel-2")
    assert (again.status, again.json["code"]) == (409, "invalid_transition")
    assert [effect["type"] for effect in stack.effects(checkout_id)] in ([], ["cancel"])


def test_a_change_is_read_at_once_and_of_one_version(stack: RunningStack) -> None:
    checkout_id = paid(stack, "succeeded", metadata={"a": "b"})
    path = f"/v1/payments/{checkout_id}"
    etag = stack.request("GET", path).headers["etag"]
    for n in range(5):
        changed = stack.request("PATCH", path, {"description": f"change {n}"}, {"If-Match": etag})
        assert (changed.status, changed.json["description"]) == (200, f"change {n}"), changed
        seen = stack.request("GET", path)
        assert (seen.headers["etag"], seen.json) == (changed.headers["etag"], changed.json)
        stale = stack.request("PATCH", path, {"description": "late"}, {"If-Match": etag})
        assert (stale.status, stale.json["code"]) == (412, "version_mismatch")
        etag = changed.headers["etag"]
    assert stack.request("PATCH", path, {"description": "x"}).status == 428


def test_pages_of_a_list_follow_each_other_while_payments_come(stack: RunningStack) -> None:
    customer = new_checkout_id()
    made = [paid(stack, "succeeded", customer_id=customer) for _ in range(5)]
    seen: list[str] = []
    query = {"customer_id": customer, "limit": "2"}
    for _ in range(3):
        page = stack.request("GET", f"/v1/payments?{urlencode(query)}").json
        seen += [payment["payment_checkout_id"] for payment in page["data"]]
        made.append(paid(stack, "succeeded", customer_id=customer))
        query["cursor"] = page["next_cursor"] or ""
    assert seen == made[4::-1]


def test_every_shard_answers_for_any_payment(stack: RunningStack) -> None:
    checkout_id = paid(stack, "succeeded")
    accepted = operate(stack, checkout_id, "refunds", "everywhere")
    for shard in stack.json.shards:
        connection = HTTPConnection(urlsplit(shard.http).netloc, timeout=10)
        headers = {"Authorization": f"Bearer {stack.json.api_key}", "Idempotency-Key": "everywhere"}
        try:
            connection.request("POST", f"/v1/payments/{checkout_id}/refunds", headers=headers)
            answer = connection.getresponse()
            assert (answer.status, json.loads(answer.read())["id"]) == (200, accepted.json["id"])
            connection.request("GET", accepted.headers["location"], headers=headers)
            assert connection.getresponse().status == 200
        finally:
            connection.close()


def test_the_commands_follow_an_operation_to_its_end(stack: RunningStack) -> None:
    checkout_id = paid(stack, "authorized", capture="manual")
    captured = stack.tollgate("capture", checkout_id, "--amount", "1000")
    assert (captured.returncode, "capture of 1000" in captured.stdout) == (0, True), captured.stderr
    wait_until(lambda: stack.status_of(checkout_id) == "succeeded", "captured")
    for _ in range(2):
        refunded = stack.tollgate("refund", checkout_id, "--key", "once", "--reason", "torn")
        assert (refunded.returncode, "succeeded" in refunded.stdout) == (0, True), refunded.stderr
    wait_until(lambda: stack.status_of(checkout_id) == "refunded", "refunded")
    refused = stack.tollgate("cancel", checkout_id)
    assert (refused.returncode, "invalid_transition" in refused.stderr) == (1, True)
    assert "Traceback" not in refused.stderr


def test_an_operation_right_after_the_202_is_taken_or_asked_for_again(stack: RunningStack) -> None:
    checkout_id = new_checkout_id()
    assert stack.pay(checkout_id, payment_method="pm_slow_300").status == 202
    answers: list[Answer] = []

    def is_taken() -> bool:
        answers.append(operate(stack, checkout_id, "cancel", "cancel-1"))
        return answers[-1].status == 202

    wait_until(is_taken, "the cancel is taken")
    for early in answers[:-1]:
        assert (early.status, early.json["code"]) == (409, "not_yet_processed")
        assert int(early.headers["retry-after"]) >= 1
    nobodys = operate(stack, new_checkout_id(), "cancel", "cancel-1")
    assert (nobodys.status, nobodys.json["code"]) == (404, "not_found")
