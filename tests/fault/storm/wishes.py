"""What the clients of a storm want: drawn from its seed, one wish a payment. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Final

# Every payment method that the design names; what is there more than once is what shops see most.
_METHODS: Final = (
    *("pm_ok",) * 6,
    "pm_declined",
    *("pm_action",) * 3,
    "pm_slow_300",
    "pm_slow_1500",
    "pm_unavailable_1",
    "pm_unavailable_3",
    "pm_lost",
    "pm_reset",
    *("pm_late_webhook",) * 3,
    "tok_of_the_shop",
)
_CURRENCIES: Final = ("EUR", "USD", "JPY")


class Payer(enum.StrEnum):
    """What the payer does on the PSP's page."""

    CONFIRMS = "confirms"
    DECLINES = "declines"
    NEVER_COMES = "never_comes"


class Again(enum.StrEnum):
    """What a client sends once more under the same id."""

    NOTHING = "nothing"
    THE_SAME = "the_same"
    ANOTHER = "another"


@dataclass(frozen=True)
class Wish:
    """`ending` is of what is authorized: an amount to capture, 0 to cancel, None to leave. `refunds` are
    asked for all at once, so that together they may be too much.
    """

    checkout_id: str
    body: dict[str, Any]
    payer: Payer
    again: Again
    ending: int | None
    refunds: tuple[int | None, ...]
    changes_description: bool

    def other_body(self) -> dict[str, Any]:
        return self.body | {"amount": self.body["amount"] + 1}


def wishes(run: str, seed: int, number: int) -> Iterator[Wish]:
    """Without an end."""
    random = Random(f"wishes {seed} {number}")
    methods: list[str] = []
    position = 0
    while True:
        if not methods:
            methods = random.sample(_METHODS, len(_METHODS))
        yield _wish(f"{run}-{position:06}", methods.pop(), random)
        position += 1


def _wish(checkout_id: str, method: str, random: Random) -> Wish:
    amount = random.randint(100, 100_000)
    body: dict[str, Any] = {
        "amount": amount,
        "currency": random.choice(_CURRENCIES),
        "payment_method": method,
        "capture": random.choice(("automatic", "manual")),
        "metadata": {"order": checkout_id},
    }
    return Wish(
        checkout_id=checkout_id,
        body=body,
        payer=random.choices(tuple(Payer), (8, 1, 1))[0],
        again=random.choices(tuple(Again), (8, 1, 1))[0],
        ending=random.choice((None, 0, amount, amount - 50, amount)),
        refunds=random.choice(((), (), (), (None,), (amount // 2, amount // 3), (None, None))),
        changes_description=random.random() < 0.1,
    )
