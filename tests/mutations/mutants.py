"""Deliberate bugs for the simulation: each a named text of production code, there once, and what it becomes.

The campaign's own stand beside this as patches. Nothing of them is in production: `loader` compiles the
changed source in a process of its own. A patch whose text is no longer there is an error: none goes blind.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Mutant(NamedTuple):
    """`breaks` is the rule that it breaks, in words."""

    name: str
    module: str
    old: str
    new: str
    breaks: str


MUTANTS: Final = (
    Mutant(
        "ack-before-fsync",
        "gateway.committer",
        "        self._flusher.flush(self._flushed)\n",
        "        self._answer(batch, plan)\n        self._flusher.flush(self._flushed)\n",
        "a 202 goes out after the fsync",
    ),
    Mutant(
        "watermark-before-fsync",
        "gateway.committer",
        "        self._flusher.flush(self._flushed)\n",
        "        incarnation, epoch = self.identity.incarnation, self.identity.epoch\n"
        "        self._watermark.publish(Watermark(incarnation, epoch, plan.log.last))\n"
        "        self._flusher.flush(self._flushed)\n",
        "the watermark says what is on disk",
    ),
    Mutant(
        "read-before-fsync",
        "gateway.committer",
        "        if self._commit is not None and key in self._commit.before:\n"
        "            return self._commit.before[key]\n",
        "",
        "reads and replays are answered from the disk",
    ),
    Mutant(
        "batch-forgets-its-own",
        "gateway.planner",
        "        self._payments[key] = payment\n",
        "",
        "an entry sees the earlier ones of its batch",
    ),
    Mutant(
        "accept-what-is-there",
        "gateway.planner",
        "        if stored is not None:\n            same = ",
        "        if stored is not None and not Payment.FromString(stored).version:\n            same = ",
        "an id is accepted once",
    ),
    Mutant(
        "apply-older-status",
        "gateway.planner",
        "if stored is not None and Payment.FromString(stored).version >= snapshot.version:",
        "if False:",
        "a version that is not newer is ignored",
    ),
    Mutant(
        "silence-is-a-no",
        "gateway.verdict",
        "    return Absence.SILENT if Absence.SILENT in answers else Absence.UNKNOWN\n",
        "    return Absence.UNKNOWN\n",
        "404 only when everybody has said no",
    ),
    Mutant(
        "news-before-fsync",
        "gateway.elsewhere",
        "        return said if await self.learned(said) else payment\n",
        "        return said\n",
        "what a shard has shown it never shows older",
    ),
    Mutant(
        "cursor-before-delivery",
        "cdc.runner",
        "        self._delivered.sent(sent)\n",
        "        self._delivered.sent(sent)\n"
        "        self._delivered.reported([Span(sent[0].sequence, sent[-1].sequence)])\n"
        "        self.acknowledger.moved()\n",
        "the cursor moves over delivery reports",
    ),
    Mutant(
        "report-jumps-the-gap",
        "cdc.cursor",
        "        while (last := self._ahead.pop(self.prefix + 1, None)) is not None:\n"
        "            self.prefix = last\n",
        "        self.prefix = max((self.prefix, *self._ahead.values()))\n        self._ahead.clear()\n",
        "the cursor moves over a contiguous prefix",
    ),
    Mutant(
        "skip-on-gap",
        "cdc.record",
        '                return records, f"{sequence} follows {expected - 1}"\n',
        "                expected = sequence\n",
        "nothing of the change log is skipped",
    ),
    Mutant(
        "offset-before-apply",
        "cdc.status_feed",
        "                    published_at_us = max(published_at_us, await self._take(records))\n",
        "                    asyncio.get_running_loop().create_task(self._take(records))\n",
        "the status feed's offset moves after the shard has it",
    ),
    Mutant(
        "offset-before-insert",
        "processor.intake",
        "        refused += await self._store(good, letters, now_us, room)\n",
        "        import asyncio\n\n"
        "        async def later():\n"
        "            try:\n"
        "                await self._store(good, letters, now_us, room)\n"
        "            except OperationalError:\n"
        "                pass\n\n"
        "        asyncio.get_running_loop().create_task(later())\n",
        "offsets are committed after the insert",
    ),
    Mutant(
        "dedupe-by-high-water",
        "processor.intake",
        "            change = parse(record, now_us)\n",
        "            change = parse(record, now_us)\n"
        "            if isinstance(change, Acceptance):\n"
        "                seen = self.__dict__.setdefault('seen', {})\n"
        "                if change.origin.sequence <= seen.get(change.origin.shard, 0):\n"
        "                    continue\n"
        "                seen[change.origin.shard] = change.origin.sequence\n",
        "a change is known by its own id, not by how far its shard was",
    ),
    Mutant(
        "resend-as-new",
        "processor.pipeline",
        "                    attempts.append(_again(claim, taken, CallKind.SEND))\n",
        "                    key = f'{taken.request.idempotency_key}{len(taken.calls)}'\n"
        "                    anew = replace(taken, request=replace(taken.request, idempotency_key=key))\n"
        "                    attempts.append(_again(claim, anew, CallKind.SEND))\n",
        "a send after a time-out is the same request",
    ),
    Mutant(
        "resend-past-retention",
        "processor.operation",
        "            if -RETENTION_MARGIN_S <= age_s < terms.key_retention_s - RETENTION_MARGIN_S:\n",
        "            if -RETENTION_MARGIN_S <= age_s:\n",
        "nothing is sent again once the PSP may have forgotten its key",
    ),
    Mutant(
        "no-doubt",
        "processor.operation",
        "            doubt = doubt or call.answer is not Answer.RETRYABLE\n",
        "            doubt = doubt or call.answer is Answer.UNKNOWN\n",
        "a call without an answer may have had an effect",
    ),
    Mutant(
        "expire-what-was-sent",
        "processor.operation",
        "        if taken is None and now_us >= claim.payment.expires_at_us:\n",
        "        if now_us >= claim.payment.expires_at_us:\n",
        "only what was never sent expires",
    ),
    Mutant(
        "fail-in-doubt",
        "processor.outcome",
        "    if in_doubt(calls):  # this call had no effect; an earlier one may have\n",
        "    if False:\n",
        "a payment fails for want of an answer only when none can have had an effect",
    ),
    Mutant(
        "no-fencing",
        "processor.storage.operations",
        '    return {_key(row): payments[row["merchant"], row["checkout_id"]] for row in held}\n',
        "    return {item.claim.key: payments[item.claim.key[:2]] for item in conclusions}\n",
        "who has lost the lease decides nothing",
    ),
    Mutant(
        "budget-per-process",
        "processor.budget",
        "        first_in_s = await reserve(self._pool, self.psp, seconds, self.policy.horizon_s)\n",
        "        own = f'{self.psp}/{id(self)}'\n"
        "        first_in_s = await reserve(self._pool, own, seconds, self.policy.horizon_s)\n",
        "at most R calls a second over all processors",
    ),
    Mutant(
        "mark-before-report",
        "processor.relay",
        "        delivered = await self._publish(connection, plan.records)\n"
        "        await self._mark(connection, plan, delivered)\n",
        "        await self._mark(connection, plan, [True] * len(plan.records))\n"
        "        delivered = await self._publish(connection, plan.records)\n",
        "the outbox is marked after the delivery report",
    ),
    Mutant(
        "mark-what-was-lost",
        "processor.relay",
        " if (entry.merchant, entry.checkout_id) not in broken]\n",
        "]\n",
        "what was not delivered is sent again",
    ),
    Mutant(
        "tell-the-owner-alone",
        "processor.relay",
        "            shards = {*entry.shards, *(() if owner is None else (owner,))}\n",
        "            shards = set() if owner is None else {owner}\n",
        "every shard that shipped a payment hears of it",
    ),
    Mutant(
        "open-refunds-uncounted",
        "processor.operation_request",
        "    taken = sum(item.amount for item in standing if item.kind is OperationKind.REFUND)\n",
        "    taken = payment.refunded_amount\n",
        "open refunds count as if they had succeeded",
    ),
    Mutant(
        "refund-forgets-earlier",
        "processor.operation_outcome",
        "    refunded = payment.refunded_amount + ordered.amount\n",
        "    refunded = ordered.amount\n",
        "refunds add up",
    ),
)
BY_NAME: Final = {mutant.name: mutant for mutant in MUTANTS}
