"""What a shopper's checkout is made of: drawn at random, with how it should end. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any, Final
from uuid import UUID

_METHODS: Final = (
    ("pm_ok", 70),
    ("pm_declined", 6),
    ("pm_late_webhook", 8),
    ("pm_action", 6),
    ("pm_slow_300", 4),
    ("pm_lost", 2),
    ("pm_reset", 2),
    ("pm_unavailable_2", 2),
)
_CURRENCIES: Final = ("EUR", "USD", "GBP", "JPY")


@dataclass(frozen=True)
class Checkout:
    """`then` is what its merchant does once it is paid: nothing, or a capture, cancel or refund."""

    id: str
    body: dict[str, Any]
    then: str
    is_replayed: bool
    is_contradicted: bool
    payer_approves: bool


def draw(random: Random) -> Checkout:
    methods, weights = zip(*_METHODS, strict=True)
    manual = random.random() < 0.25
    body = {
        "amount": random.randint(100, 99_999),
        "currency": random.choice(_CURRENCIES),
        "payment_method": random.choices(methods, weights)[0],
        "capture": "manual" if manual else "automatic",
        "metadata": {"cart": f"{random.getrandbits(40):010x}"},
    }
    return Checkout(
        id=str(UUID(int=random.getrandbits(128), version=4)),
        body=body,
        then=random.choices(("capture", "cancel"), (4, 1))[0]
        if manual
        else random.choices(("nothing", "refund", "refunds"), (6, 2, 2))[0],
        is_replayed=random.random() < 0.1,
        is_contradicted=random.random() < 0.05,
        payer_approves=random.random() < 0.8,
    )
