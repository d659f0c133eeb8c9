"""Whether what clients were told is what Postgres holds and what the PSP did. Pure: three accounts, compared.

The PSP's ledger is the witness that Tollgate never writes. A payment that stands has exactly one `charge` or
`authorization` there, one that failed has none, and what was never accepted has none either way but may still
be under way, so only its effects beyond the first are held against it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tollgate.cli.pay_client import Paid
from tollgate.cli.pay_orders import Order, acceptable
from tollgate.status import AUTHORIZED, BY_NAME, FAILED, NAME, REQUIRES_ACTION

Problem = Literal["refused", "unfinished", "missing", "double", "different"]


@dataclass(frozen=True)
class Row:
    """A payment in Postgres."""

    status: str
    amount: int
    currency: str
    failure_code: str = ""


@dataclass(frozen=True)
class Effect:
    """A `charge` or `authorization` in the PSP's ledger."""

    type: str
    amount: int
    currency: str


@dataclass(frozen=True)
class Finding:
    checkout_id: str
    problem: Problem
    detail: str


def check_payments(
    paid: Iterable[Paid], rows: Mapping[str, Row], effects: Mapping[str, Sequence[Effect]]
) -> list[Finding]:
    """Everything that is wrong, in the order of the payments; `rows` and `effects` are by checkout id."""
    findings: list[Finding] = []
    for one in paid:
        checkout_id = one.order.checkout_id
        row, had = rows.get(checkout_id), effects.get(checkout_id, ())
        findings += (Finding(checkout_id, problem, detail) for problem, detail in _problems_of(one, row, had))
    return findings


def _problems_of(paid: Paid, row: Row | None, effects: Sequence[Effect]) -> list[tuple[Problem, str]]:
    problems: list[tuple[Problem, str]] = []
    if len(effects) > 1:
        problems.append(("double", f"{len(effects)} effects in the PSP's ledger"))
    if paid.accepted_after_s is None:
        return [*problems, ("refused", paid.refusal)]
    if row is None:
        problems.append(("missing", "accepted, and not in Postgres"))
    if paid.ended_after_s is None:
        return [*problems, ("unfinished", paid.refusal)]
    if row is not None:
        problems += _row_problems(paid, row)
    return problems + _effect_problems(paid.order, paid.payment["status"], effects)


def _row_problems(paid: Paid, row: Row) -> list[tuple[Problem, str]]:
    order, told = paid.order, paid.payment["status"]
    expected = acceptable(order.expected)
    problems: list[tuple[Problem, str]] = []
    if (row.amount, row.currency) != (order.body.amount, order.body.currency):
        problems.append(
            (
                "different",
                f"{row.amount} {row.currency} in Postgres, "
                f"{order.body.amount} {order.body.currency} was asked for",
            )
        )
    if row.status != told and BY_NAME.get(row.status) not in acceptable(BY_NAME[told]):
        problems.append(("different", f"{row.status} in Postgres, the client was told {told}"))
    elif BY_NAME.get(row.status) not in expected:
        because = f" ({row.failure_code})" if row.failure_code else ""
        problems.append(("different", f"{row.status}{because}, expected {NAME[order.expected]}"))
    return problems


def _effect_problems(order: Order, told: str, effects: Sequence[Effect]) -> list[tuple[Problem, str]]:
    if BY_NAME[told] in (FAILED, REQUIRES_ACTION):
        return [("different", f"{told}, and the PSP has a {effect.type} for it") for effect in effects[:1]]
    if not effects:
        return [("missing", f"{told}, and nothing in the PSP's ledger")]
    wanted = Effect(
        "authorization" if order.expected == AUTHORIZED else "charge", order.body.amount, order.body.currency
    )
    return [
        (
            "different",
            f"{effect.type} of {effect.amount} {effect.currency} at the PSP, "
            f"expected {wanted.type} of {wanted.amount} {wanted.currency}",
        )
        for effect in effects
        if effect != wanted
    ]
