"""The trouble that a test asks for: five knobs, and what they make of one call.

The knobs live in memory: a restarted simulator behaves. They touch `/v1/*` only.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tollgate.local.simulator.behaviour import Delivery

Rate = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Scenario(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    latency_ms: Annotated[float, Field(ge=0, le=600_000, allow_inf_nan=False)] = 0
    error_rate: Rate = 0
    lost_answer_rate: Rate = 0
    reset_rate: Rate = 0
    down: bool = False


@dataclass(frozen=True, slots=True)
class Fate:
    """What the scenario does to one call: first the delay, then the effect or not, then the delivery."""

    delay_s: float
    executes: bool
    delivery: Delivery


class Director:
    """Holds the scenario and draws each call's fate from it.

    One draw a call: the rates are shares of all calls, in the order error, lost, reset. Every second error
    has its effect all the same, as in an outage at a real PSP.
    """

    def __init__(self, rng: random.Random) -> None:
        self.scenario = Scenario()
        self._rng = rng
        self._errors = 0

    def merge(self, raw: bytes) -> Scenario:
        """Lays the given knobs over what is set. Raises pydantic.ValidationError and changes nothing."""
        given = Scenario.model_validate_json(raw)
        changed = self.scenario.model_dump() | given.model_dump(exclude_unset=True)
        self.scenario = Scenario.model_validate(changed)
        return self.scenario

    def fate(self) -> Fate:
        scenario = self.scenario
        delay_s = scenario.latency_ms / 1000
        draw = self._rng.random()
        if draw < scenario.error_rate:
            self._errors += 1
            return Fate(delay_s, executes=self._errors % 2 == 0, delivery=Delivery.ERROR)
        draw -= scenario.error_rate
        if draw < scenario.lost_answer_rate:
            return Fate(delay_s, executes=True, delivery=Delivery.LOST)
        draw -= scenario.lost_answer_rate
        if draw < scenario.reset_rate:
            return Fate(delay_s, executes=True, delivery=Delivery.RESET)
        return Fate(delay_s, executes=True, delivery=Delivery.ANSWER)
