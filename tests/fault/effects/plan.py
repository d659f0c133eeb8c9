"""What one round does, and at which step of the pipeline: drawn from the campaign's seed and the round's
number, so that a round that failed can be had again. Pure.

The rounds are a deck: every fault at every moment comes once before any comes again.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import Final, NamedTuple


class Step(enum.StrEnum):
    """A step of the pipeline as it is seen on the wire. All but CALL end with a commit."""

    INTAKE = "intake"
    REQUEST = "request"  # a capture, cancel or refund asked of the Ledger
    CLAIM = "claim"
    ATTEMPT = "attempt"  # the exact request and its attempt, stored before the call
    CALL = "call"
    OUTCOME = "outcome"
    RELAY = "relay"  # the mark that follows the delivery to Kafka


class When(enum.StrEnum):
    """Of a commit: before Postgres hears of it; done, its answer not yet heard. Of a call: before the PSP
    hears of it; sent on, nothing answered; executed and answered, the answer not yet heard.
    """

    BEFORE = "before"
    DURING = "during"
    AFTER = "after"


class Moment(NamedTuple):
    step: Step
    when: When

    def __str__(self) -> str:
        return f"{self.when} {self.step}"


class Fault(enum.StrEnum):
    """The victim is the processor that comes to the moment first."""

    KILL = "kill"  # -9, and started again
    FREEZE = "freeze"  # stands still for longer than its leases
    FREEZE_LONG = "freeze_long"  # for longer than its Kafka session too: its partitions go to others
    CUT = "cut"  # only the connection ends
    DELAY = "delay"  # the message is under way for longer than the lease, while all others go on
    REBALANCE = "rebalance"  # another processor joins, or leaves again
    SLOW_PSP = "slow_psp"  # answers later than anyone waits
    KILL_PSP = "kill_psp"
    KILL_POSTGRES = "kill_postgres"
    KILL_KAFKA = "kill_kafka"


class Phase(enum.IntEnum):
    """Each begins when the one before has come to rest."""

    PAYMENTS = 0
    ENDINGS = 1  # captures and cancels of what was authorized
    REFUNDS = 2


MOMENTS: Final = (
    *(Moment(step, when) for step in Step if step is not Step.CALL for when in (When.BEFORE, When.AFTER)),
    *(Moment(Step.CALL, when) for when in When),
)
DECK: Final = tuple(product(Fault, MOMENTS))
# So many calls of a phase may pass by before; there are always more.
_CALLS_BEFORE_MAX: Final = {Phase.PAYMENTS: 7, Phase.ENDINGS: 3, Phase.REFUNDS: 4}


@dataclass(frozen=True)
class Plan:
    fault: Fault
    moment: Moment
    phase: Phase
    passing: int = 0  # of these moments, before the one that is meant

    def __str__(self) -> str:
        return f"{self.fault} {self.moment} of {self.phase.name.lower()}"


def plan_of(seed: int, number: int) -> Plan:
    deal, card = divmod(number, len(DECK))
    deck = list(DECK)
    Random(f"deck {seed} {deal}").shuffle(deck)
    fault, moment = deck[card]
    random = Random(f"round {seed} {number}")
    phases = [phase for phase in Phase if _has(phase, moment.step)]
    phase = random.choice(phases)
    passing = random.randint(0, _CALLS_BEFORE_MAX[phase]) if moment.step is Step.CALL else 0
    return Plan(fault, moment, phase, passing)


def _has(phase: Phase, step: Step) -> bool:
    match step:
        case Step.INTAKE:
            return phase is Phase.PAYMENTS
        case Step.REQUEST:
            return phase is not Phase.PAYMENTS
        case _:
            return True
