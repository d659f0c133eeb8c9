"""What the clients of a round want, and what must come of it whatever happens: known before anything is sent.
Pure.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from tests.fault.effects.plan import Phase
from tests.fixtures.changes import accepted_payment
from tollgate.ids import PAYMENT_OPERATION, psp_idempotency_key
from tollgate.v1.payment_pb2 import Capture, OperationType, Payment

MERCHANT: Final = "acme"


class Effect(NamedTuple):
    """As the PSP's ledger has it."""

    idempotency_key: str
    type: str
    checkout_id: str
    amount: int


class Standing(NamedTuple):
    status: str
    captured: int
    refunded: int


class Asked(NamedTuple):
    """An operation that the client asks for."""

    type: OperationType.ValueType
    amount: int
    client_key: str


@dataclass(frozen=True)
class Wish:
    """A kind of purchase. `ending` is of what is authorized: what is captured, or 0 to cancel."""

    payment_method: str
    ending: int | None = None
    refunds: tuple[int, ...] = ()


AMOUNT: Final = 1234
WISHES: Final = (
    Wish("pm_ok", refunds=(AMOUNT,)),
    Wish("pm_ok", refunds=(400, 300)),
    Wish("pm_ok", refunds=(1000, 234)),
    Wish("pm_ok", ending=1000, refunds=(1000,)),
    Wish("pm_ok", ending=AMOUNT, refunds=(1,)),
    Wish("pm_ok", ending=0),
    Wish("pm_slow_100", ending=0),
    Wish("pm_slow_200", ending=AMOUNT),
    Wish("pm_reset", ending=500),
    Wish("pm_unavailable_1", refunds=(5,)),
    Wish("pm_declined"),
    Wish("pm_lost"),
)


@dataclass
class Purchase:
    """One payment on its way. `operation_ids` are those that the Ledger gave, by the client's key."""

    checkout_id: str
    wish: Wish
    operation_ids: dict[str, str] = field(default_factory=dict)

    def payment(self, now_us: int) -> Payment:
        manual = self.wish.ending is not None
        capture = Capture.CAPTURE_MANUAL if manual else Capture.CAPTURE_AUTOMATIC
        made = accepted_payment(
            self.checkout_id, merchant=MERCHANT, amount=AMOUNT, capture=capture, now_us=now_us
        )
        made.payment_method = self.wish.payment_method
        return made

    def asks(self, phase: Phase) -> list[Asked]:
        match phase, self.wish.ending:
            case Phase.ENDINGS, 0:
                return [Asked(OperationType.OPERATION_TYPE_CANCEL, AMOUNT, "cancel")]
            case Phase.ENDINGS, int(amount):
                return [Asked(OperationType.OPERATION_TYPE_CAPTURE, amount, "capture")]
            case Phase.REFUNDS, _:
                refund = OperationType.OPERATION_TYPE_REFUND
                return [Asked(refund, amount, f"refund-{n}") for n, amount in enumerate(self.wish.refunds)]
        return []

    def standing(self, after: Phase) -> Standing:
        wish = self.wish
        if wish.payment_method == "pm_declined":
            return Standing("failed", 0, 0)
        if wish.ending is not None and after is Phase.PAYMENTS:
            return Standing("authorized", 0, 0)
        if wish.ending == 0:
            return Standing("canceled", 0, 0)
        captured = AMOUNT if wish.ending is None else wish.ending
        refunded = sum(wish.refunds) if after is Phase.REFUNDS else 0
        if not refunded:
            return Standing("succeeded", captured, 0)
        return Standing("refunded" if refunded == captured else "partially_refunded", captured, refunded)

    def effects(self) -> Counter[Effect]:
        """Of the whole purchase, one each: the amount of a cancel is all that was authorized."""
        if self.wish.payment_method == "pm_declined":
            return Counter()
        first = "charge" if self.wish.ending is None else "authorization"
        wanted = [self._effect(PAYMENT_OPERATION, "charge", first, AMOUNT)]
        for phase in (Phase.ENDINGS, Phase.REFUNDS):
            for asked in self.asks(phase):
                kind = asked.client_key.partition("-")[0]
                wanted.append(self._effect(self.operation_ids[asked.client_key], kind, kind, asked.amount))
        return Counter(wanted)

    def _effect(self, operation_id: str, step: str, kind: str, amount: int) -> Effect:
        key = psp_idempotency_key(MERCHANT, self.checkout_id, operation_id, step)
        return Effect(key, kind, self.checkout_id, amount)


def purchases(run: str, number: int) -> list[Purchase]:
    """Only in one round of three a PSP that withholds its answer: it takes two seconds to find out."""
    wishes = WISHES if number % 3 == 2 else [_heard(wish) for wish in WISHES]
    return [Purchase(f"{run}-{position:02}", wish) for position, wish in enumerate(wishes)]


def _heard(wish: Wish) -> Wish:
    return replace(wish, payment_method="pm_ok") if wish.payment_method in ("pm_lost", "pm_reset") else wish
