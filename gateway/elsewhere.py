"""What this shard asks others about a payment: three questions, never on the way of an ordinary request.

- Before an id is accepted that another shard owns or has owned: does somebody have it? Who can't be asked
  delays nothing; the id is accepted, and intake arbitrates.
- Before a read is answered 404: has everybody said no? Who can't be asked may be a shard that has died: what
  it had accepted its tailer ships, so the Ledger is asked again for a moment before the read is refused.
- Before a payment is told that may have moved unheard: does the Ledger know better? An open one that has
  stood still for a while, or since before this process; any that has not moved since another owned its id.

All are asked at once. Bounded: how many look-ups are under way, how long each takes, how often one payment is
refreshed. A no is never kept: a POST on its way to a shard that owned the id before may make it untrue at any
moment. It is all memory: nothing survives a crash, or has to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from gateway.metrics import Metrics
from gateway.owners import Owners
from gateway.recently import Recently
from gateway.verdict import Absence, Answer, verdict
from tollgate.clock import Clock
from tollgate.errors import OperationalError
from tollgate.growing_wait import GrowingWait
from tollgate.ids import payment_key
from tollgate.status import OPEN
from tollgate.v1.payment_pb2 import OperationStatus, Payment

_UNDER_WAY: Final = OperationStatus.OPERATION_STATUS_PENDING
_REFRESHED_MAX: Final = 10_000  # 200 bytes each
# Where the processors are behind, every poll is of a payment that stands still: so many are refreshed at once
# and the rest answered as they are; while the Ledger is silent nobody waits to hear so again.
_REFRESHES_MAX: Final = 8
_SILENCE_S: Final = 1.0
# A payment is usually in Postgres that soon after its acceptance; when not, the Ledger has much to do.
_ASK_AGAIN_S_MIN: Final = 0.1
_ASK_AGAIN_S_MAX: Final = 1.0
# So long after a change of the ring a status may still go to the former owner: relays look five times a
# second, and clocks differ.
_OLD_RING_US: Final = 2_000_000
_WAITING_MAX: Final = 64  # reads at once: each holds one of the 512 places that nginx has for a shard


class Ledger(Protocol):
    async def find_payment(self, merchant: str, checkout_id: str, timeout_s: float) -> Payment | None:
        """Raises OperationalError when no Ledger answers."""
        ...


class OtherShards(Protocol):
    async def get_payment(
        self, address: str, merchant: str, checkout_id: str, timeout_s: float
    ) -> Payment | None:
        """What that shard has on disk and may tell. Raises OperationalError when it doesn't answer."""
        ...


class RingNow(Protocol):
    @property
    def owners(self) -> Owners:
        """As the ring is now."""
        ...


class Keep(Protocol):
    async def __call__(self, payment: Payment, *, own: bool, within_s: float) -> bool:
        """Whether what this shard has on disk of it is no older now. `own`: it belongs here."""
        ...


@dataclass(frozen=True, slots=True)
class LookUpPolicy:
    timeout_s: float
    in_flight_max: int
    refresh_after_s: float
    shipped_within_s: float


class Elsewhere:
    """Belongs to one event loop. `keep` is given what is found, to be stored here."""

    def __init__(
        self,
        *,
        ring: RingNow,
        ledger: Ledger,
        shards: OtherShards,
        keep: Keep,
        clock: Clock,
        metrics: Metrics,
        policy: LookUpPolicy,
    ) -> None:
        self._ring = ring
        self._ledger = ledger
        self._shards = shards
        self._keep = keep
        self._clock = clock
        self._metrics = metrics
        self._policy = policy
        self._refresh_after_us = round(policy.refresh_after_s * 1_000_000)
        self._began_us = clock.now_us()
        self._refreshed = Recently(clock, policy.refresh_after_s, _REFRESHED_MAX)
        self._in_flight = 0
        self._refreshing = 0
        self._waiting = 0
        self._silent_until = 0.0

    async def learned(self, payment: Payment) -> bool:
        """What others told is on disk here, where it belongs or is older, before it is told on: else the next
        read would show it older. Best effort: it comes over `payments.status` too. False when it is not.
        """
        own = self._ring.owners.is_own(payment.checkout_id)
        return await self._keep(payment, own=own, within_s=self._policy.timeout_s)

    @property
    def in_flight(self) -> int:
        return self._in_flight

    def asked_before_accepting(self, checkout_id: str) -> tuple[str, ...] | None:
        """The shards to ask beside the Ledger; None: nobody is to be asked. On the way of every POST."""
        return self._ring.owners.asked_before_accepting(checkout_id)

    async def before_accepting(
        self, merchant: str, checkout_id: str, shards: Sequence[str]
    ) -> Payment | None:
        """The payment if somebody has it. None also when somebody could not be asked."""
        said = await self._look_up("accept", merchant, checkout_id, shards)
        if not isinstance(said, Payment):
            return None
        await self.learned(said)
        return said

    async def before_denying(self, merchant: str, checkout_id: str) -> Answer:
        """UNKNOWN only when the Ledger and every shard that may have it have now said no."""
        owners = self._ring.owners
        asked = owners.asked_before_denying(checkout_id)
        said = await self._look_up("deny", merchant, checkout_id, asked, self._policy.shipped_within_s)
        if isinstance(said, Payment):
            await self.learned(said)
        if said is not Absence.UNKNOWN:
            return said
        if owners.version != self._ring.owners.version:  # others may have it by now, and were not asked
            return Absence.SILENT
        return said

    def is_stale(self, payment: Payment) -> bool:
        """Whether it may have moved unheard and the Ledger was not asked of late. On the way of its reads."""
        if not (self._stands_still(payment) or self._was_anothers(payment)) or self._is_busy_refreshing():
            return False
        return payment_key(payment.merchant, payment.checkout_id) not in self._refreshed

    async def refreshed(self, payment: Payment) -> Payment:
        """As the Ledger has it, if that is newer and on disk here too; else the payment itself."""
        if self._is_busy_refreshing():  # since `is_stale` was asked
            return payment
        self._refreshing += 1
        try:
            said = await self._look_up("refresh", payment.merchant, payment.checkout_id, ())
        finally:
            self._refreshing -= 1
        if said is Absence.SILENT:
            self._silent_until = self._clock.monotonic() + _SILENCE_S
            return payment  # still to be refreshed: others may have told more than this
        self._refreshed.put(payment_key(payment.merchant, payment.checkout_id))
        if not isinstance(said, Payment) or said.version <= payment.version:
            return payment
        return said if await self.learned(said) else payment

    def _stands_still(self, payment: Payment) -> bool:
        """An open one. When it has not moved since before this process began it may have done so meanwhile,
        and others, who answered in its place, may have told so: a client must not see it go back.
        """
        if not _may_move(payment):
            return False
        stands_until_us = payment.updated_at_us + self._refresh_after_us
        return payment.updated_at_us < self._began_us or stands_until_us <= self._clock.now_us()

    def _was_anothers(self, payment: Payment) -> bool:
        """Whether it has not moved since this shard came to own its id. Who owned it until then heard what
        became of it, to its end and beyond (refunds), and told so.
        """
        owned_us = self._ring.owners.owned_since_us(payment.checkout_id)
        return payment.updated_at_us < owned_us + _OLD_RING_US

    def _is_busy_refreshing(self) -> bool:
        return self._refreshing >= _REFRESHES_MAX or self._clock.monotonic() < self._silent_until

    async def _look_up(
        self,
        question: str,
        merchant: str,
        checkout_id: str,
        shards: Sequence[str],
        shipped_within_s: float = 0.0,
    ) -> Answer:
        if self._in_flight >= self._policy.in_flight_max:
            self._metrics.look_ups.labels(question=question, outcome="refused").inc()
            return Absence.SILENT
        self._in_flight += 1
        try:
            said = await self._ask_all(merchant, checkout_id, shards)
            if said is Absence.SILENT and shipped_within_s and self._waiting < _WAITING_MAX:
                self._waiting += 1
                try:
                    said = await self._once_shipped(merchant, checkout_id, shipped_within_s)
                finally:
                    self._waiting -= 1
        finally:
            self._in_flight -= 1
        self._metrics.look_ups.labels(question=question, outcome=_name(said)).inc()
        return said

    async def _ask_all(self, merchant: str, checkout_id: str, shards: Sequence[str]) -> Answer:
        """When the verdict stands, or the time is over, nobody is waited for any more."""
        timeout_s, payment = self._policy.timeout_s, (merchant, checkout_id)
        asked = [self._ask("ledger", partial(self._ledger.find_payment, *payment, timeout_s), payment)]
        for shard in shards:
            ask = partial(self._shards.get_payment, shard, *payment, timeout_s)
            asked.append(self._ask("shard", ask, payment))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        tasks = [loop.create_task(question) for question in asked]
        try:
            while True:
                left_s = deadline - loop.time()
                unheard = None if left_s > 0 else Absence.SILENT
                said = verdict([task.result() if task.done() else unheard for task in tasks])
                if said is not None:
                    return said
                waiting = [task for task in tasks if not task.done()]
                await asyncio.wait(waiting, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def _once_shipped(self, merchant: str, checkout_id: str, within_s: float) -> Answer:
        """What the Ledger knows of it within that time. Its no is none while somebody can't be asked."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        wait = GrowingWait(_ASK_AGAIN_S_MIN, _ASK_AGAIN_S_MAX)
        while (said := await self._ask_all(merchant, checkout_id, ())) is Absence.UNKNOWN:
            if loop.time() >= deadline:
                return Absence.SILENT
            await asyncio.sleep(wait.next())
        return said

    async def _ask(
        self, whom: str, ask: Callable[[], Awaitable[Payment | None]], payment: tuple[str, str]
    ) -> Answer:
        try:
            found = await ask()
        except OperationalError:
            answer: Answer = Absence.SILENT
        else:
            answer = _checked(found, payment)
        self._metrics.asks.labels(whom=whom, answer=_name(answer)).inc()
        return answer


def _may_move(payment: Payment) -> bool:
    """Whether it is open: it moves by itself, or one of its operations is under way."""
    operations = payment.operations
    return payment.status in OPEN or (
        len(operations) > 0 and any(operation.status == _UNDER_WAY for operation in operations)
    )


def _checked(found: Payment | None, payment: tuple[str, str]) -> Answer:
    """An answer that is another payment's is none."""
    if found is None:
        return Absence.UNKNOWN
    return found if (found.merchant, found.checkout_id) == payment else Absence.SILENT


def _name(answer: Answer) -> str:
    return answer.value if isinstance(answer, Absence) else "found"
