"""The client against a gateway that fails in every way that a client must survive."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from tollgate.cli.pay_client import Paid, PayClient, Polling
from tollgate.cli.pay_many import pay_all
from tollgate.cli.pay_orders import Order, generate_orders
from tollgate.clock import SystemClock


class FakeGateway:
    """Answers POSTs with `trouble` first, then 202; a payment succeeds at its third GET."""

    def __init__(self) -> None:
        self.trouble: list[int] = []  # statuses; 0 closes the connection
        self.refuse_with: int | None = None
        self.ends = True
        self.posts: list[tuple[str, bytes]] = []
        self.gets: dict[str, int] = {}
        self.open = 0
        self.open_max = 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.open += 1
        self.open_max = max(self.open_max, self.open)
        try:
            if request.method == "POST":
                return await self._post(request)
            return self._get(request.path.rpartition("/")[2], request.headers["If-None-Match"])
        finally:
            self.open -= 1

    async def _post(self, request: web.BaseRequest) -> web.Response:
        checkout_id = request.headers["X-PAYMENT-CHECKOUT-ID"]
        known = any(checkout_id == posted for posted, _ in self.posts)
        self.posts.append((checkout_id, await request.read()))
        if self.refuse_with is not None:
            problem = {"code": "invalid_request", "errors": [{"field": "amount", "message": "too odd"}]}
            return web.json_response(problem, status=self.refuse_with)
        if self.trouble:
            status = self.trouble.pop(0)
            if status == 0 and request.transport is not None:
                request.transport.abort()
            return web.json_response({"code": "not_ready"}, status=status or 500)
        return web.json_response(_payment("pending", 0), status=200 if known else 202)

    def _get(self, checkout_id: str, known: str) -> web.Response:
        seen = self.gets[checkout_id] = self.gets.get(checkout_id, 0) + 1
        if not self.ends or seen < 3:
            return (
                web.Response(status=304) if known == '"1"' else web.json_response(_payment("processing", 1))
            )
        return web.json_response(_payment("succeeded", 2))


def _payment(status: str, version: int) -> dict[str, Any]:
    return {"status": status, "version": version, "created_at": "2026-11-21T10:00:00.000001Z"}


Connect = Callable[..., PayClient]


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
async def connect(gateway: FakeGateway) -> AsyncIterator[Connect]:
    runner = web.ServerRunner(web.Server(gateway.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]

    def connected(timeout_s: float = 20.0) -> PayClient:
        return PayClient(
            f"http://127.0.0.1:{port}",
            "key",
            concurrency=8,
            timeout_s=timeout_s,
            polling=Polling(first_s=0.001),
            clock=SystemClock(),
            rng=random.Random(1),
        )

    yield connected
    await runner.cleanup()


def orders(count: int = 1) -> list[Order]:
    return generate_orders(
        count, random.Random(1), amount=5, currency="EUR", payment_method="pm_ok", capture="automatic"
    )


async def pay(client: PayClient, seen: list[str] | None = None) -> Paid:
    async with client:
        return await client.pay(
            orders()[0], lambda paid, _after_s: None if seen is None else seen.append(paid.payment["status"])
        )


async def test_a_payment_is_followed_from_202_to_its_end(connect: Connect) -> None:
    seen: list[str] = []
    paid = await pay(connect(), seen)
    assert seen == ["pending", "processing", "succeeded"]
    assert paid.accepted_after_s is not None
    assert paid.ended_after_s is not None
    assert paid.accepted_after_s < paid.ended_after_s
    assert (paid.retries, paid.replayed, paid.refusal) == (0, False, "")


async def test_5xx_429_and_no_answer_are_sent_again_with_the_same_id_and_body(
    connect: Connect, gateway: FakeGateway
) -> None:
    gateway.trouble = [503, 0, 429, 500]
    paid = await pay(connect())
    assert paid.retries == 4
    assert paid.payment["status"] == "succeeded"
    assert len(gateway.posts) == 5
    assert len(set(gateway.posts)) == 1


async def test_retries_end_with_the_time(connect: Connect, gateway: FakeGateway) -> None:
    gateway.trouble = [503] * 100
    paid = await pay(connect(timeout_s=0.3))
    assert paid.accepted_after_s is None
    assert "no acceptance within 0.3 s; the last try: 503 not_ready" in paid.refusal


async def test_a_refusal_is_kept_with_its_reason_and_not_tried_again(
    connect: Connect, gateway: FakeGateway
) -> None:
    gateway.refuse_with = 400
    paid = await pay(connect())
    assert paid.refusal == "400 invalid_request amount: too odd"
    assert len(gateway.posts) == 1


async def test_a_payment_that_does_not_end_is_told_so(connect: Connect, gateway: FakeGateway) -> None:
    gateway.ends = False
    paid = await pay(connect(timeout_s=0.3))
    assert paid.refusal == "still processing after 0.3 s"
    assert paid.ended_after_s is None


async def test_many_are_paid_each_once_and_no_more_at_a_time_than_asked(
    connect: Connect, gateway: FakeGateway
) -> None:
    wanted = orders(40)
    ended: list[Paid] = []
    async with connect() as client:
        paid = await pay_all(client, wanted, 4, ended.append)
    assert [one.order for one in paid] == wanted
    assert len(ended) == 40
    assert len(gateway.posts) == 40
    assert gateway.open_max <= 4
