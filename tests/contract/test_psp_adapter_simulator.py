"""What the simulator's adapter makes of answers that the simulator doesn't give of itself: all in doubt."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import orjson
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from processor.psp.answer import ANSWER_BYTES_MAX, TEXT_MAX
from processor.psp.interface import (
    ActionRequired,
    Approved,
    Awaited,
    Declined,
    Done,
    Outcome,
    PspRequest,
    Retryable,
    Unknown,
)
from processor.psp.simulator import SimulatorPsp, interpret

REQUEST = PspRequest(
    "POST",
    "/v1/charges",
    "k" * 64,
    orjson.dumps({"amount": 100, "currency": "EUR", "reference": "demo/checkout-1"}),
)
CHARGE = {
    "id": "ch_1",
    "status": "succeeded",
    "amount": 100,
    "currency": "EUR",
    "reference": "demo/checkout-1",
}


def outcome_of(status: int, document: object, retry_after: str | None = None) -> Outcome:
    return interpret(REQUEST, status, retry_after, orjson.dumps(document))


def test_an_answer_about_what_was_sent_is_approved() -> None:
    assert outcome_of(200, CHARGE) == Approved("ch_1", 100, "EUR", captured=True)
    assert outcome_of(200, CHARGE | {"status": "authorized"}) == Approved("ch_1", 100, "EUR", captured=False)


def test_what_a_refusal_says_is_kept_as_far_as_it_can_be_stored() -> None:
    said = {"error": {"code": "insufficient\0_funds", "message": "No.\0" + "o" * 60_000}}
    declined = outcome_of(402, said)
    assert isinstance(declined, Declined)
    assert declined.code == "insufficient_funds"
    assert (declined.message[:4], len(declined.message)) == ("No.o", TEXT_MAX)


def test_a_charge_that_is_still_processing_is_told_of_later() -> None:
    assert outcome_of(202, CHARGE | {"status": "processing"}) == Awaited("ch_1")


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount": 101},
        {"amount": "100"},
        {"currency": "USD"},
        {"reference": "demo/checkout-2"},
        {"id": ""},
        {"id": None},
        {"status": "canceled"},
        {"status": None},
        {"status": "requires_action"},
    ],
)
def test_an_answer_about_anything_else_is_unknown(wrong: dict[str, object]) -> None:
    assert isinstance(outcome_of(200, CHARGE | wrong), Unknown)


def test_a_charge_that_waits_for_its_payer_is_action_required() -> None:
    waiting = CHARGE | {"status": "requires_action", "url": "http://psp.example/3ds"}
    assert outcome_of(200, waiting) == ActionRequired("ch_1", "http://psp.example/3ds")


def test_too_many_calls_is_retryable_after_what_the_psp_says() -> None:
    assert outcome_of(429, {}, "3") == Retryable("the PSP answered 429", 3.0)
    assert outcome_of(429, {}, "soon") == Retryable("the PSP answered 429", None)


def test_a_503_is_retryable_only_with_the_documented_code() -> None:
    assert isinstance(outcome_of(503, {"error": {"code": "unavailable_no_effect"}}), Retryable)
    assert isinstance(outcome_of(503, {"error": {"code": "unavailable"}}), Unknown)
    assert isinstance(outcome_of(503, {"error": "unavailable_no_effect"}), Unknown)


def test_a_refused_request_is_declined_and_a_reused_key_is_not() -> None:
    error = {"error": {"code": "invalid_request", "message": "amount"}}
    assert outcome_of(400, error) == Declined("invalid_request", "amount")
    assert isinstance(outcome_of(422, {"error": {"code": "idempotency_key_reused"}}), Unknown)


REFUND = PspRequest("POST", "/v1/charges/ch_1/refunds", "k" * 64, orjson.dumps({"amount": 100}))
REFUNDED = {
    "id": "re_1",
    "type": "refund",
    "status": "succeeded",
    "charge": "ch_1",
    "amount": 100,
    "currency": "EUR",
}


def test_an_answer_about_the_refund_that_was_sent_is_done() -> None:
    assert interpret(REFUND, 200, None, orjson.dumps(REFUNDED)) == Done("re_1", 100, "EUR")


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount": 99},
        {"amount": "100"},
        {"charge": "ch_2"},
        {"type": "capture"},
        {"status": "pending"},
        {"id": ""},
    ],
)
def test_an_answer_about_any_other_operation_is_unknown(wrong: dict[str, object]) -> None:
    assert isinstance(interpret(REFUND, 200, None, orjson.dumps(REFUNDED | wrong)), Unknown)


def test_a_refused_operation_is_declined_and_an_unknown_charge_is_not() -> None:
    def heard(status: int, code: str) -> Outcome:
        return interpret(REFUND, status, None, orjson.dumps({"error": {"code": code, "message": "No."}}))

    assert heard(422, "amount_too_large") == Declined("amount_too_large", "No.")
    assert heard(409, "invalid_transition") == Declined("invalid_transition", "No.")
    assert isinstance(heard(422, "idempotency_key_reused"), Unknown)
    assert isinstance(heard(404, "not_found"), Unknown)


@given(status=st.integers(100, 599), answer=st.binary(max_size=40))
def test_an_unreadable_answer_is_never_an_approval_nor_a_decline(status: int, answer: bytes) -> None:
    outcome = interpret(REQUEST, status, None, answer)
    assert isinstance(outcome, Retryable if status == 429 else Unknown)


Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Handler], Awaitable[SimulatorPsp]]]:
    """Serves one handler as the PSP; the adapter that calls it."""
    runners: list[web.ServerRunner] = []
    adapters: list[SimulatorPsp] = []

    async def start(handler: Handler) -> SimulatorPsp:
        runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        runners.append(runner)
        adapters.append(SimulatorPsp(f"http://127.0.0.1:{runner.addresses[0][1]}", timeout_s=2.0))
        return adapters[-1]

    yield start
    for adapter in adapters:
        await adapter.close()
    for runner in runners:
        await runner.cleanup()


async def test_the_stored_bytes_and_key_go_out_as_they_are(
    serve: Callable[[Handler], Awaitable[SimulatorPsp]],
) -> None:
    seen: list[tuple[str, str, str, bytes]] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        headers = request.headers
        seen.append((request.path, headers["Idempotency-Key"], headers["traceparent"], await request.read()))
        return web.Response(body=orjson.dumps(CHARGE))

    odd = PspRequest(
        "POST", "/v1/charges", "key", b' {"amount":100,\n"currency":"EUR","reference":"demo/checkout-1"}'
    )
    adapter = await serve(handler)
    assert isinstance(await adapter.send(odd, "00-trace"), Approved)
    assert seen == [("/v1/charges", "key", "00-trace", odd.body)]


async def test_a_traceparent_that_is_no_header_does_not_keep_a_payment_from_going_out(
    serve: Callable[[Handler], Awaitable[SimulatorPsp]],
) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=orjson.dumps(CHARGE | {"status": request.headers.get("traceparent")}))

    adapter = await serve(handler)
    for traceparent in ("succeeded\r\nEvil: yes", "\0", "süß", ""):
        assert await adapter.send(REQUEST, traceparent) == Unknown("the PSP's charge is None", "ch_1")


async def test_an_endless_answer_and_a_redirect_are_unknown(
    serve: Callable[[Handler], Awaitable[SimulatorPsp]],
) -> None:
    calls: list[str] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        calls.append(request.path)
        if len(calls) == 1:
            return web.Response(body=b" " * ANSWER_BYTES_MAX + orjson.dumps(CHARGE))
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    adapter = await serve(handler)
    assert isinstance(await adapter.send(REQUEST, "t"), Unknown)
    assert isinstance(await adapter.send(REQUEST, "t"), Unknown)
    assert calls == ["/v1/charges", "/v1/charges"]


async def test_a_send_is_one_send_also_when_the_connection_breaks(
    serve: Callable[[Handler], Awaitable[SimulatorPsp]],
) -> None:
    calls: list[str] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        calls.append(request.path)
        if len(calls) > 1 and request.transport is not None:
            request.transport.abort()
        return web.Response(body=orjson.dumps(CHARGE))

    adapter = await serve(handler)
    assert isinstance(await adapter.send(REQUEST, "t"), Approved)
    assert isinstance(await adapter.send(REQUEST, "t"), Unknown)  # on the connection kept alive
    assert len(calls) == 2


async def test_a_connection_that_is_never_accepted_is_retryable() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        adapter = SimulatorPsp(f"http://127.0.0.1:{full.getsockname()[1]}", timeout_s=0.5)
        assert isinstance(await adapter.send(REQUEST, "t"), Retryable)
        await adapter.close()
        for filler in fillers:
            filler.close()
