"""Every example of the document, sent to a live shard and through nginx; the answers are as described."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gateway.openapi import examples
from gateway.openapi.answers import problem_example
from gateway.openapi.schemas import HIDDEN_FROM_BROWSERS
from tests.fixtures.described import Described
from tests.fixtures.live_shards import LiveShards, live_shards
from tests.fixtures.shard import API_KEY, MERCHANT
from tollgate.status import BY_NAME
from tollgate.v1.payment_pb2 import Capture, MetadataEntry, Payment

AUTHORIZED = {"Authorization": f"Bearer {API_KEY}"}
SENDING = AUTHORIZED | {"Content-Type": "application/json"}
MADE_ANEW = {"psp", "client_secret", "created_at", "updated_at", "payment_checkout_id"}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Front:
    """One address, and the document that it serves; every answer is checked against it."""

    def __init__(self, address: str) -> None:
        self._address = address
        served = self._ask("GET", "/openapi.json", {}, None)
        assert served.status == 200
        self.described = Described(served.json)

    def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        answer = self._ask(method, path, headers or {}, body)
        self.described.check(method, path.partition("?")[0], *answer)
        return answer

    def pay(self, checkout_id: str, body: object) -> Answer:
        headers = SENDING | {"X-PAYMENT-CHECKOUT-ID": checkout_id}
        return self.ask("POST", "/v1/payments", headers, json.dumps(body).encode())

    def _ask(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> Answer:
        connection = HTTPConnection(self._address, timeout=10)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, named, answer.read())
        finally:
            connection.close()


@pytest.fixture(params=["shard", "nginx"])
def front(live: LiveShards, request: pytest.FixtureRequest) -> Front:
    return Front(live.through if request.param == "nginx" else live.shards[0])


def test_every_request_example_is_accepted_and_answered_as_shown(front: Front) -> None:
    for number, (name, body) in enumerate(examples.REQUESTS.items()):
        checkout_id = f"example-{number}-{front.described.document['info']['title']}-{id(front)}"
        sent = body | ({"payment_checkout_id": checkout_id} if "payment_checkout_id" in body else {})
        accepted = front.pay(checkout_id, sent)
        assert accepted.status == 202, name
        assert accepted.headers["location"] == f"/v1/payments/{checkout_id}"
        if name == "everything":
            shown = {field: value for field, value in examples.ACCEPTED.items() if field not in MADE_ANEW}
            assert {k: v for k, v in accepted.json.items() if k not in MADE_ANEW} == shown
        assert front.pay(checkout_id, sent).status == 200
        assert front.pay(checkout_id, sent | {"amount": 1}).json == problem_example("idempotency_key_reused")
        path = accepted.headers["location"]
        told = front.ask("GET", path, AUTHORIZED)
        assert (told.status, told.json) == (200, accepted.json)
        unchanged = front.ask("GET", path, AUTHORIZED | {"If-None-Match": told.headers["etag"]})
        assert (unchanged.status, unchanged.body) == (304, b"")
        by_browser = front.ask("GET", f"{path}?client_secret={accepted.json['client_secret']}").json
        assert by_browser == examples.for_browser(accepted.json, HIDDEN_FROM_BROWSERS)
        assert front.ask("HEAD", path, AUTHORIZED).status == 200
        assert front.ask("OPTIONS", path).status == 204


def seeded(live: LiveShards, shown: dict[str, Any], checkout_id: str) -> str:
    """The path of a payment that the Ledger has as the document shows it, in a version of its own."""
    payment = Payment(
        merchant=MERCHANT,
        checkout_id=checkout_id,
        status=BY_NAME[shown["status"]],
        version=shown["version"],
        amount=shown["amount"],
        currency=shown["currency"],
        capture=Capture.CAPTURE_AUTOMATIC,
        psp=shown["psp"],
        psp_reference=shown["psp_reference"],
        customer_id=shown["customer_id"],
        description=shown["description"],
        metadata=[MetadataEntry(key=key, value=value) for key, value in shown["metadata"].items()],
        captured_amount=shown["captured_amount"],
        created_at_us=1_795_255_200_000_000,
        updated_at_us=1_795_255_200_045_112,
    )
    live.ledger.payments[MERCHANT, checkout_id] = payment
    return f"/v1/payments/{checkout_id}"


AUTHORIZED_ONLY = examples.SUCCEEDED | {"status": "authorized", "captured_amount": 0}


@pytest.mark.parametrize(
    ("kind", "payment", "bodies", "shown"),
    [
        ("capture", AUTHORIZED_ONLY, examples.CAPTURES, examples.CAPTURE),
        ("cancel", AUTHORIZED_ONLY, examples.CANCELS, examples.CANCEL),
        ("refunds", examples.SUCCEEDED, examples.REFUNDS, examples.REFUND),
    ],
)
def test_every_operation_example_is_accepted_and_answered_as_shown(
    front: Front, live: LiveShards, kind: str, payment: Any, bodies: dict[str, Any], shown: dict[str, Any]
) -> None:
    for number, body in enumerate(bodies.values()):
        path = seeded(live, payment, f"{kind}-{number}-{id(front)}")
        sending = SENDING | {"Idempotency-Key": examples.IDEMPOTENCY_KEY}
        accepted = front.ask("POST", f"{path}/{kind}", sending, json.dumps(body).encode())
        anew = {"id": accepted.json["id"], "created_at": accepted.json["created_at"]}
        amount = {"amount": body.get("amount", 1999)}
        assert (accepted.status, accepted.json) == (202, shown | anew | amount)
        again = front.ask("POST", f"{path}/{kind}", sending, json.dumps(body).encode())
        assert (again.status, again.json) == (200, accepted.json)
        address = accepted.headers["location"]
        assert front.ask("GET", address, AUTHORIZED).json == accepted.json
        assert front.ask("HEAD", address, AUTHORIZED).status == 200
        assert front.ask("GET", path, AUTHORIZED).json["operations"] == [accepted.json]


def test_every_change_example_and_the_list_are_answered_as_shown(front: Front, live: LiveShards) -> None:
    path = seeded(live, examples.SUCCEEDED, f"change-{id(front)}")
    for number, (name, body) in enumerate(examples.CHANGES.items()):
        sending = SENDING | {"If-Match": f'"{2 + number}"'}
        changed = front.ask("PATCH", path, sending, json.dumps(body).encode())
        assert changed.status == 200
        if name == "both":
            shown = {k: v for k, v in examples.CHANGED.items() if k not in MADE_ANEW}
            assert {k: v for k, v in changed.json.items() if k not in MADE_ANEW} == shown
    page = front.ask("GET", "/v1/payments?limit=1&customer_id=customer-77", AUTHORIZED)
    assert page.status == 200
    assert [payment["customer_id"] for payment in page.json["data"]] == ["customer-77"]
    assert front.ask("HEAD", "/v1/payments", AUTHORIZED).status == 200


@pytest.mark.parametrize(
    ("path", "bodies", "shown"),
    [
        ("/v1/customers", examples.CUSTOMERS, examples.CUSTOMER),
        ("/v1/payment_methods", examples.METHODS, examples.METHOD),
    ],
)
def test_every_vault_example_is_made_and_answered_as_shown(
    front: Front, path: str, bodies: dict[str, Any], shown: dict[str, Any]
) -> None:
    for name, body in bodies.items():
        sending = SENDING | {"Idempotency-Key": f"{name}-{id(front)}"}
        made = front.ask("POST", path, sending, json.dumps(body).encode())
        assert made.status == 201
        if name == "everything":
            anew = {"id": made.json["id"], "created_at": made.json["created_at"]}
            assert made.json == shown | anew
        assert front.ask("POST", path, sending, json.dumps(body).encode()).json == made.json
        place = made.headers["location"]
        assert front.ask("GET", place, AUTHORIZED).json == made.json
        assert front.ask("HEAD", place, AUTHORIZED).status == 200
    page = front.ask("GET", f"{path}?limit=1", AUTHORIZED).json
    assert [one["id"] for one in page["data"]] == [made.json["id"]]
    assert front.ask("GET", f"{path}?cursor={page['next_cursor']}", AUTHORIZED).status == 200
    if path == "/v1/payment_methods":
        assert front.ask("DELETE", place, AUTHORIZED).status == 204
        assert front.ask("GET", place, AUTHORIZED).status == 404


def test_every_problem_example_is_what_is_answered(
    front: Front, live: LiveShards, request: pytest.FixtureRequest
) -> None:
    sound = json.dumps(examples.REQUESTS["smallest"]).encode()
    named = {"X-PAYMENT-CHECKOUT-ID": "example-problem"}
    path = "/v1/payments"
    settled = seeded(live, examples.SUCCEEDED, f"problems-{id(front)}")
    accepted_only = front.pay(f"unshipped-{id(front)}", examples.REQUESTS["smallest"]).headers["location"]
    with_key = SENDING | {"Idempotency-Key": "key"}
    half = {"amount": 500}
    front.ask("POST", f"{settled}/refunds", SENDING | {"Idempotency-Key": "half"}, json.dumps(half).encode())
    change = json.dumps(examples.CHANGES["both"]).encode()
    seeded(live, examples.SUCCEEDED, f"problems-2-{id(front)}")
    other = f"/v1/payments/problems-2-{id(front)}"
    answers = {
        "missing_idempotency_key": front.ask("POST", f"{settled}/cancel", AUTHORIZED),
        "precondition_required": front.ask("PATCH", other, SENDING, change),
        "version_mismatch": front.ask("PATCH", other, SENDING | {"If-Match": '"1"'}, change),
        "not_yet_processed": front.ask("POST", f"{accepted_only}/cancel", with_key, b"{}"),
        "invalid_transition": front.ask("POST", f"{settled}/capture", with_key, b"{}"),
        "amount_too_large": front.ask("POST", f"{settled}/refunds", with_key, b'{"amount":1500}'),
        "unknown_customer": front.ask(
            "POST",
            "/v1/payment_methods",
            SENDING,
            json.dumps({"token": "pm_ok", "customer_id": examples.CUSTOMER_ID}).encode(),
        ),
        "invalid_request": front.ask(
            "POST", path, SENDING | named, b'{"amount": "19.99", "payment_method": "pm_ok"}'
        ),
        "missing_checkout_id": front.ask("POST", path, SENDING, sound),
        "unauthorized": front.ask("POST", path, SENDING | named | {"Authorization": "Bearer x"}, sound),
        "unsupported_media_type": front.ask("POST", path, SENDING | named | {"Content-Type": "a/b"}, sound),
        "not_found": front.ask("GET", f"{path}/nobody-knows-it", AUTHORIZED),
        "payload_too_large": front.ask("POST", path, SENDING | named, b" " * 65_537),
        "idempotency_key_reused": None,  # above
    }
    assert answers.keys() == examples.DETAILS.keys()
    for code, answer in answers.items():
        if answer is not None:
            told = answer.json
            by_nginx = code == "payload_too_large" and "nginx" in request.node.name
            assert told | ({"detail": examples.DETAILS[code]} if by_nginx else {}) == problem_example(code)


def test_whatever_has_no_body_to_send_is_answered_as_described(front: Front) -> None:
    for path, item in front.described.document["paths"].items():
        at = path.replace("{payment_checkout_id}", "nobody-knows-it").replace("{operation_id}", "op_1")
        at = at.replace("{customer_id}", examples.CUSTOMER_ID)
        at = at.replace("{payment_method_id}", examples.METHOD_ID)
        for method in item.keys() & {"get", "head", "options"}:
            front.ask(method.upper(), at)
        for method in {"PUT", "DELETE", "PATCH"} - {known.upper() for known in item}:
            assert front.ask(method, at).status in (404, 405)
    assert front.ask("GET", "/nothing").json["code"] == "not_found"
    etag = front.ask("GET", "/docs").headers["etag"]
    assert front.ask("GET", "/docs", {"If-None-Match": etag}).status == 304


def test_each_shard_serves_the_same_bytes(live: LiveShards) -> None:
    for path in ("/openapi.json", "/docs"):
        assert len({Front(address).ask("GET", path).body for address in (*live.shards, live.through)}) == 1


def test_an_unready_shard_says_so_as_described(tmp_path: Path) -> None:
    with live_shards(tmp_path, count=1) as live:
        front = Front(live.through)
        live.live[0].kill()
        down = front.pay("example-of-an-absent-shard", examples.REQUESTS["smallest"])
        assert (down.status, down.json["code"]) == (503, "owner_unavailable")
