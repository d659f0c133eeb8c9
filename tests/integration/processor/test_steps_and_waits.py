"""Payments of several steps, and payments that wait for their payer or their capture."""

from __future__ import annotations

import asyncio

import pytest

from processor.psp.interface import Outcome, PspRequest
from tests.fixtures.changes import accepted_payment, change_record
from tests.integration.processor.asking import (
    CANCEL,
    HOUR_S,
    accepted,
    authorized,
    drain,
    events,
    paid,
    standing,
)
from tests.integration.processor.conftest import Bench
from tollgate.v1.payment_pb2 import Capture


async def test_a_psp_with_two_steps_gets_each_once_under_a_key_of_its_own(bench: Bench) -> None:
    bench.psp.has_two_steps = True
    bench.psp.script += ["lose", "approve", "drop", "lose"]
    await paid(bench)
    assert await standing(bench) == ("succeeded", 1234, 0)
    paths = [request.path for request in bench.psp.sent]
    assert paths == ["/create", "/create", "/confirm", "/confirm", "/confirm"]
    assert len(set(bench.psp.sent)) == 2
    assert len({request.idempotency_key for request in bench.psp.sent}) == 2
    assert len(bench.psp.charges) == len(bench.psp.effects) == 1
    stored = await bench.pool.fetch("SELECT step, position FROM psp_requests ORDER BY position")
    assert [tuple(row) for row in stored] == [("create", 1), ("confirm", 2)]
    assert len(await events(bench)) == 3


async def test_a_worker_that_dies_between_two_steps_leaves_the_second_to_another(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.psp.has_two_steps = True
    send = bench.psp.send

    async def hangs(request: PspRequest, traceparent: str) -> Outcome:
        await send(request, traceparent)
        raise asyncio.CancelledError  # the process is gone

    await bench.take_in(change_record(accepted_payment()))
    assert await bench.run_due() == 1  # created
    with monkeypatch.context() as patch:
        patch.setattr(bench.psp, "send", hangs)
        with pytest.raises(asyncio.CancelledError):
            await bench.run_due()
    await bench.let_leases_end()
    await drain(bench)
    assert await standing(bench) == ("succeeded", 1234, 0)
    assert len(bench.psp.effects) == 1


async def awaiting_its_payer(bench: Bench, capture: Capture.ValueType = Capture.CAPTURE_AUTOMATIC) -> None:
    bench.psp.script.append("action")
    await paid(bench, capture)
    row = await bench.payment()
    assert (row["status"], row["next_action_url"]) == ("requires_action", "https://psp.example/3ds")


async def test_a_payer_who_came_is_found_by_asking_and_the_bytes_are_not_sent_again(bench: Bench) -> None:
    await awaiting_its_payer(bench)
    bench.psp.visit()
    await bench.let_leases_end()
    await drain(bench)
    assert await standing(bench) == ("succeeded", 1234, 0)
    assert (await bench.payment())["next_action_url"] == ""
    assert (len(bench.psp.sent), len(bench.psp.asked)) == (1, 1)


async def test_a_payer_who_never_comes_ends_the_payment_at_the_psp_too(bench: Bench) -> None:
    await awaiting_its_payer(bench)
    await bench.let_leases_end()
    assert await bench.run_due() == 1  # asked too early: it goes on waiting
    assert (await standing(bench))[0] == "requires_action"
    bench.clock.advance(HOUR_S)
    await bench.let_leases_end()
    await drain(bench)
    row = await bench.payment()
    assert (row["status"], row["failure_code"]) == ("failed", "action_expired")
    assert [charge.status for charge in bench.psp.charges.values()] == ["canceled"]


async def test_a_payer_who_comes_at_the_last_moment_has_paid(bench: Bench) -> None:
    await awaiting_its_payer(bench)
    bench.clock.advance(HOUR_S)
    await bench.let_leases_end()
    assert await bench.run_due() == 1  # asked: still waiting
    bench.psp.visit()
    await drain(bench)  # the PSP refuses to end it, is asked again, and says so
    assert await standing(bench) == ("succeeded", 1234, 0)
    assert bench.psp.total("cancel") == 0


async def test_a_cancel_ends_a_payment_that_waits_for_its_payer(bench: Bench) -> None:
    await awaiting_its_payer(bench)
    await accepted(bench, CANCEL)
    await drain(bench)
    assert await standing(bench) == ("canceled", 0, 0)
    own = await bench.operation()
    assert (own["status"], own["failure_code"], own["claimable_at"]) == ("failed", "canceled", None)


async def test_an_authorization_past_its_window_ends_as_the_psp_says(bench: Bench) -> None:
    await authorized(bench)
    await bench.let_leases_end()
    assert await bench.run_due() == 1
    assert (await standing(bench))[0] == "authorized"  # it outlives its window
    (charge,) = bench.psp.charges.values()
    charge.status = "expired"
    await bench.let_leases_end()
    await drain(bench)
    row = await bench.payment()
    assert (row["status"], row["failure_code"]) == ("canceled", "authorization_expired")
    assert len(bench.psp.sent) == 1
