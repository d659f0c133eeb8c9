"""Claimed operations on their way: assess, store, call, conclude.

1. Every claim gets its next step, purely.
2. A payment that names a customer or a method kept here gets the PSP's token, or fails.
3. A first execution is assessed, and its exact request built.
4. All requests of the batch are stored in one transaction. What that doesn't confirm is not sent.
5. The calls go out side by side, with no transaction open, each only while its lease certainly outlives it.
6. Each answer is concluded by the committer as it comes.

A payment that intake brings can be `begun` by it: steps 1 to 4 then belong to the transaction that stores it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import orjson
import structlog

from processor import metrics
from processor.commit import Committer
from processor.judgement import Judge
from processor.operation import (
    Ask,
    CallKind,
    Claim,
    Execute,
    Expire,
    LookUp,
    Park,
    Postpone,
    Refuse,
    Send,
    TakenStep,
    next_step,
)
from processor.outcome import (
    ANSWER_OF,
    Decision,
    begin,
    decide_expired,
    decide_missing,
    decide_risk_declined,
)
from processor.patience import Health, persist
from processor.psp.interface import OperationKind, Order, Outcome, PspAdapter, Resolution
from processor.risk import Assessment, RiskAssessor
from processor.storage.attempts import Assessed, NewAttempt, store_attempts
from processor.storage.database import Pool
from processor.storage.operations import Answered, Conclusion
from processor.storage.vault import find_named
from processor.vault import Missing, customer_named, method_named, resolve
from tollgate.clock import Clock
from tollgate.errors import OperationalError, RejectedInput
from tollgate.ids import PAYMENT_OPERATION, psp_idempotency_key
from tollgate.v1.payment_pb2 import Payment

_ASSESSED_AGAIN_S: Final = 10.0

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Timing:
    """`psp_timeout_s` bounds every call; a lease is at least twice that."""

    lease_s: float
    psp_timeout_s: float


class Pipeline:
    """Executes claims. Stateless between them: everything that matters is in Postgres."""

    def __init__(
        self,
        pool: Pool,
        committer: Committer,
        adapters: Mapping[str, PspAdapter],
        assessor: RiskAssessor,
        judge: Judge,
        timing: Timing,
        clock: Clock,
        health: Health,
    ) -> None:
        self._pool = pool
        self._committer = committer
        self._adapters = adapters
        self._assessor = assessor
        self._judge = judge
        self._timing = timing
        self._clock = clock
        self._health = health

    async def run(self, claims: Sequence[Claim], on_finished: Callable[[], None]) -> None:
        """Takes every claim as far as it goes now; `on_finished` is called once for each."""
        attempts, conclusions = await self.plan(claims)
        allowed = await self.store(attempts)
        for _refused in range(len(attempts) - len(allowed)):
            on_finished()  # the lease was lost: whoever holds it now goes on
        ways = [self.call(attempt) for attempt in allowed]
        ways += [self.conclude(conclusion) for conclusion in conclusions]
        await asyncio.gather(*(finishing(way, on_finished) for way in ways))

    async def run_stored(self, attempts: Sequence[NewAttempt], on_finished: Callable[[], None]) -> None:
        """The same for calls that are stored already, under leases that hold."""
        await asyncio.gather(*(finishing(self.call(attempt), on_finished) for attempt in attempts))

    def begun(self, payment: Payment, lease_ends: float) -> NewAttempt | None:
        """The first call of a payment that nobody has stored yet, as if it had been claimed already.

        None when its first step is another, or somebody must be asked before it: then it is claimed like
        any other. So is one whose PSP tells only by webhook: were Postgres' answer lost after its commit, a
        person would be asked about what was never sent.
        """
        adapter = self._adapters.get(payment.psp)
        following = begin(payment, payment.updated_at_us)  # both versions are of one moment
        if adapter is None or following is None or customer_named(payment) or method_named(payment):
            return None
        claim = Claim(
            following,
            PAYMENT_OPERATION,
            fencing_token=1,
            lease_ends=lease_ends,
            kind=OperationKind.PAYMENT,
            amount=payment.amount,
            created_at_us=payment.updated_at_us,
        )
        match next_step(claim, adapter.plan, self._clock.now_us()):
            case Execute(step) if adapter.plan.terms[step].resolution is not Resolution.WEBHOOK:
                verdict = self._assessor.assess_at_once(following)
                if verdict is None or verdict.declined:
                    return None
                return self._first(replace(claim, risk_score=verdict.score), step, _stored_form(verdict))
        return None

    async def plan(self, claims: Sequence[Claim]) -> tuple[list[NewAttempt], list[Conclusion]]:
        """The calls that are to be made, and what is concluded without one. Nothing is stored or sent yet."""
        attempts: list[NewAttempt] = []
        conclusions: list[Conclusion] = []
        executing: list[tuple[Claim, str]] = []
        for claim in claims:
            adapter = self._adapters.get(claim.payment.psp)
            match next_step(claim, adapter.plan if adapter else None, self._clock.now_us()):
                case Execute(step) if claim.kind is OperationKind.PAYMENT:
                    executing.append((claim, step))
                case Execute(step):
                    attempts.append(self._first(claim, step))
                case Send(taken):
                    attempts.append(_again(claim, taken, CallKind.SEND))
                case LookUp(taken):
                    attempts.append(_again(claim, taken, CallKind.LOOK_UP))
                case Ask(taken):
                    attempts.append(_again(claim, taken, CallKind.ASK))
                case Expire():
                    decide = partial(decide_expired, now_us=self._clock.now_us())
                    conclusions.append(Conclusion(claim, decide))
                case Refuse(message):
                    conclusions.append(self._judge.refused(claim, message))
                case Postpone(reason, after_s):
                    conclusions.append(_postponed(claim, reason, after_s))
                case Park(reason):
                    conclusions.append(Conclusion(claim, partial(_decided, Decision(parked_reason=reason))))
        resolved = await self._resolve(executing, conclusions)
        attempts += [self._first(claim, step) for claim, step in resolved if claim.steps]
        if fresh := [(claim, step) for claim, step in resolved if not claim.steps]:
            await self._assess(fresh, attempts, conclusions)
        return attempts, conclusions

    async def _resolve(
        self, executing: Sequence[tuple[Claim, str]], conclusions: list[Conclusion]
    ) -> list[tuple[Claim, str]]:
        """Those whose customer and payment method there are, with the PSP's token."""
        payments = [claim.payment for claim, _step in executing]
        customers = {name for payment in payments if (name := customer_named(payment))}
        methods = {name for payment in payments if (name := method_named(payment))}
        if not customers and not methods:
            return list(executing)
        try:
            known, kept = await find_named(self._pool, customers, methods)
        except OperationalError as error:
            conclusions += [_postponed(claim, error.message, _ASSESSED_AGAIN_S) for claim, _step in executing]
            return []
        resolved: list[tuple[Claim, str]] = []
        for claim, step in executing:
            match resolve(claim.payment, known, kept, is_begun=bool(claim.steps)):
                case Missing(code, message):
                    now_us = self._clock.now_us()
                    decide = partial(decide_missing, code=code, message=message, now_us=now_us)
                    conclusions.append(Conclusion(claim, decide))
                case payment:
                    resolved.append((replace(claim, payment=payment, is_as_stored=False), step))
        return resolved

    async def _assess(
        self,
        fresh: Sequence[tuple[Claim, str]],
        attempts: list[NewAttempt],
        conclusions: list[Conclusion],
    ) -> None:
        """An assessor that is down postpones the payment; nothing was sent."""
        verdicts = await asyncio.gather(
            *(self._assessor.assess(claim.payment) for claim, _step in fresh), return_exceptions=True
        )
        for (claim, step), verdict in zip(fresh, verdicts, strict=True):
            if isinstance(verdict, OperationalError):
                conclusions.append(_postponed(claim, verdict.message, _ASSESSED_AGAIN_S))
            elif isinstance(verdict, BaseException):
                raise verdict
            elif verdict.declined:
                conclusions.append(self._declined_by_risk(claim, verdict))
            else:
                scored = replace(claim, risk_score=verdict.score)
                attempts.append(self._first(scored, step, _stored_form(verdict)))

    def _declined_by_risk(self, claim: Claim, verdict: Assessment) -> Conclusion:
        decide = partial(decide_risk_declined, score=verdict.score, now_us=self._clock.now_us())
        return Conclusion(claim, decide, assessed=_stored_form(verdict))

    def _first(self, claim: Claim, step: str, assessed: Assessed | None = None) -> NewAttempt:
        """A step's request, built once: it is stored before it goes out, and never built again."""
        adapter = self._adapters[claim.payment.psp]
        reference = (claim.steps[-1].reference if claim.steps else "") or claim.payment.psp_reference
        kind = OperationKind.CANCEL if claim.steps and step == adapter.plan.cancel else claim.kind
        order = Order(kind, claim.payment, claim.operation_id, claim.amount, reference)
        request = adapter.build(order, step, psp_idempotency_key(*claim.key, step))
        position = len(claim.steps) + 1
        return NewAttempt(claim, step, adapter.name, request, CallKind.SEND, 1, position, assessed)

    async def store(self, attempts: Sequence[NewAttempt]) -> list[NewAttempt]:
        """Those that may go out now, under a renewed lease. A refused content stops no other."""
        if not attempts:
            return []
        lease_ends = min(attempt.claim.lease_ends for attempt in attempts)

        async def act() -> tuple[float, set[tuple[str, str, str]]]:
            begun = self._clock.monotonic()
            held = await store_attempts(self._pool, attempts, self._timing.lease_s, self._clock.now_us())
            return begun + self._timing.lease_s, held

        try:
            renewed, held = await persist(
                self._health, "postgres", act, until=lambda: self._clock.monotonic() > lease_ends
            )
        except OperationalError:
            return []
        except RejectedInput as error:
            if len(attempts) > 1:
                return [stored for attempt in attempts for stored in await self.store([attempt])]
            _refused(attempts[0], error)
            return []
        return [
            replace(attempt, claim=replace(attempt.claim, lease_ends=renewed))
            for attempt in attempts
            if attempt.claim.key in held
        ]

    async def conclude(self, conclusion: Conclusion) -> None:
        """Returns when it is durable, or refused for good."""
        await self._committer.commit(conclusion)

    async def call(self, attempt: NewAttempt) -> None:
        """Makes the call that was stored, unless its lease might not outlive it, and concludes its answer."""
        claim = attempt.claim
        if self._clock.monotonic() + self._timing.psp_timeout_s > claim.lease_ends:
            return  # it might still be under way when another worker takes over
        adapter = self._adapters[claim.payment.psp]
        begun = self._clock.monotonic()
        outcome = await self._outcome_of(adapter, attempt)
        answer = ANSWER_OF[type(outcome)]
        metrics.PSP_CALL.labels(adapter.name, answer.value).observe(self._clock.monotonic() - begun)
        await self._committer.commit(self._concluded(attempt, outcome))

    async def _outcome_of(self, adapter: PspAdapter, attempt: NewAttempt) -> Outcome:
        payment = attempt.claim.payment
        match attempt.kind:
            case CallKind.SEND:
                return await adapter.send(attempt.request, payment.traceparent)
            case CallKind.LOOK_UP:
                reference = attempt.claim.steps[-1].reference or payment.psp_reference
                return await adapter.look_up(attempt.request, reference)
            case CallKind.ASK:
                return await adapter.ask(payment)

    def _concluded(self, attempt: NewAttempt, outcome: Outcome) -> Conclusion:
        answered = Answered(
            attempt.step,
            attempt.number,
            self._clock.now_us(),
            ANSWER_OF[type(outcome)],
            _evidence(outcome),
            getattr(outcome, "reference", ""),
        )
        return self._judge.answered(attempt, outcome, answered)


def _again(claim: Claim, taken: TakenStep, kind: CallKind) -> NewAttempt:
    """Another call about the stored bytes, which are never built a second time."""
    return NewAttempt(claim, taken.name, claim.payment.psp, taken.request, kind, len(taken.calls) + 1)


def _decided(decision: Decision, _payment: Payment) -> Decision:
    return decision


def _postponed(claim: Claim, reason: str, after_s: float) -> Conclusion:
    _log.info("operation_postponed", detail=reason, merchant=claim.key[0], checkout_id=claim.key[1])
    return Conclusion(claim, partial(_decided, Decision(claim_after_s=after_s)))


def _refused(attempt: NewAttempt, error: RejectedInput) -> None:
    merchant, checkout_id, operation_id = attempt.claim.key
    metrics.ANOMALIES.labels("request_refused").inc()
    _log.error(
        "request_refused",
        detail=f"{error.message} Nothing was sent. It is tried again when its lease ends; report this.",
        merchant=merchant,
        checkout_id=checkout_id,
        operation_id=operation_id,
    )


def _stored_form(verdict: Assessment) -> Assessed:
    return Assessed(verdict.score, orjson.dumps(verdict.reasons).decode(), verdict.declined)


def _evidence(outcome: Outcome) -> str:
    """The answer as it is kept. NUL is the one character that Postgres' JSON can't hold."""
    return orjson.dumps(outcome).decode().replace("\\u0000", "")


async def finishing(way: Awaitable[None], on_finished: Callable[[], None] = lambda: None) -> None:
    """The edge of one operation: whatever goes wrong in it, its lease runs out and it is taken up again."""
    try:
        await way
    except Exception:
        _log.exception("operation_broke_off", detail="It is taken up again when its lease ends; report this.")
    finally:
        on_finished()
