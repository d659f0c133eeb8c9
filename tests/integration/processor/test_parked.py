"""Operations that wait for a person: listed with their evidence, ended by his word, on record, unsent."""

from __future__ import annotations

import asyncio

import pytest

from processor.parked import Verdict, Word
from processor.psp.interface import OperationKind, Resolution
from processor.storage.operations import claim
from processor.storage.parked import parked_operations, resolve_parked
from tests.fixtures.changes import accepted_payment, change_record
from tests.integration.processor.asking import REFUND, accepted, drain, events, find_payment, paid, standing
from tests.integration.processor.conftest import Bench
from tollgate.errors import RejectedInput

OWN = ("acme", "checkout-0001", "payment")
FROM_THE_FIRST = ("", "", "")


def word(verdict: Verdict = Verdict.EXECUTED, reference: str = "ch_found") -> Word:
    return Word(verdict, reference, "seen in the PSP's dashboard", "ada@desk")


async def park(bench: Bench, checkout_id: str = "checkout-0001") -> None:
    """Sent, never answered, and the PSP tells only by webhook."""
    bench.psp.resolution = Resolution.WEBHOOK
    bench.psp.script.append("lose")
    await bench.take_in(change_record(accepted_payment(checkout_id)))
    await bench.run_due()
    await bench.let_leases_end()
    await bench.run_due()
    assert (await bench.operation(checkout_id))["parked_reason"]


async def test_what_is_parked_is_listed_with_every_call_and_its_answer(bench: Bench) -> None:
    await park(bench)
    await park(bench, "checkout-0002")
    [first, second] = await parked_operations(bench.pool, FROM_THE_FIRST, 10)
    assert (first.key, first.kind, first.amount, first.currency) == (OWN, OperationKind.PAYMENT, 1234, "USD")
    assert (first.status, first.reason) == ("processing", "in doubt, and this PSP tells only by webhook")
    [call] = first.calls
    assert (call.step, call.kind, call.outcome, call.is_late) == ("charge", "send", "unknown", False)
    assert call.idempotency_key == bench.psp.sent[0].idempotency_key
    assert call.evidence == '{"reason": "no answer", "reference": ""}'
    assert await parked_operations(bench.pool, first.key, 10) == [second]
    assert await parked_operations(bench.pool, FROM_THE_FIRST, 1) == [first]


async def test_a_word_moves_the_payment_is_on_record_and_sends_nothing(bench: Bench) -> None:
    await park(bench)
    sent = len(bench.psp.sent)
    number, decision = await resolve_parked(bench.pool, OWN, word(), bench.clock.now_us())
    assert decision.settled is True
    assert await standing(bench) == ("succeeded", 1234, 0)
    assert await events(bench) == ["payment.pending", "payment.processing", "payment.succeeded"]
    found = await find_payment(bench.pool, "acme", "checkout-0001")
    assert found is not None
    assert found.psp_reference == "ch_found"
    [record] = await bench.pool.fetch("SELECT * FROM resolutions")
    assert dict(record) == {
        "id": number,
        "merchant": "acme",
        "checkout_id": "checkout-0001",
        "operation_id": "payment",
        "parked_reason": "in doubt, and this PSP tells only by webhook",
        "verdict": "executed",
        "psp_reference": "ch_found",
        "reason": "seen in the PSP's dashboard",
        "decided_by": "ada@desk",
        "decided_at": bench.clock.now_us(),
    }
    await bench.let_leases_end()
    assert await bench.run_due() == 0
    assert len(bench.psp.sent) == sent
    assert await parked_operations(bench.pool, FROM_THE_FIRST, 10) == []
    assert await accepted(bench, REFUND), "it can be refunded like any other"


async def test_a_refund_that_never_was_is_free_again(bench: Bench) -> None:
    await paid(bench)
    bench.psp.resolution = Resolution.WEBHOOK
    bench.psp.script.append("drop")
    operation_id = await accepted(bench, REFUND)
    await bench.run_due()
    await bench.let_leases_end()
    await bench.run_due()
    key = ("acme", "checkout-0001", operation_id)
    await resolve_parked(bench.pool, key, word(Verdict.NOT_EXECUTED, ""), bench.clock.now_us())
    assert await standing(bench) == ("succeeded", 1234, 0)
    assert (await bench.operation(operation_id=operation_id))["failure_code"] == "not_executed"
    told = await bench.pool.fetchrow("SELECT event_type, operation_id FROM outbox ORDER BY id DESC LIMIT 1")
    assert told is not None
    assert tuple(told) == ("tollgate.refund.failed", operation_id)
    await accepted(bench, REFUND)
    await drain(bench)
    assert await standing(bench) == ("refunded", 1234, 1234)


async def test_what_is_not_parked_or_can_not_end_so_is_refused_and_leaves_no_record(bench: Bench) -> None:
    await bench.take_in(change_record(accepted_payment("checkout-0002")))
    [working] = await claim(bench.pool, 1, 15.0, bench.clock.now_us(), bench.clock.monotonic())
    with pytest.raises(RejectedInput, match="is parked"):
        await resolve_parked(bench.pool, working.key, word(), bench.clock.now_us())
    await park(bench)
    with pytest.raises(RejectedInput, match="--psp-reference"):
        await resolve_parked(bench.pool, OWN, word(reference=""), bench.clock.now_us())
    with pytest.raises(RejectedInput, match="is parked"):
        await resolve_parked(bench.pool, ("zeta", *OWN[1:]), word(), bench.clock.now_us())
    assert (await bench.operation())["parked_reason"]
    assert await bench.pool.fetchval("SELECT count(*) FROM resolutions") == 0


async def test_of_two_words_at_once_one_counts(bench: Bench) -> None:
    await park(bench)
    words = [word(), word(Verdict.NOT_EXECUTED, "")]
    answers = await asyncio.gather(
        *(resolve_parked(bench.pool, OWN, each, bench.clock.now_us()) for each in words),
        return_exceptions=True,
    )
    assert sorted(isinstance(answer, RejectedInput) for answer in answers) == [False, True]
    assert (await bench.payment())["version"] == 3
    [record] = await bench.pool.fetch("SELECT verdict FROM resolutions")
    expected = "succeeded" if record["verdict"] == "executed" else "failed"
    assert (await standing(bench))[0] == expected
