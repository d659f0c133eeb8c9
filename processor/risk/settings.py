"""`TOLLGATE_RISK__…`, nested into the processor's settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from processor.risk.assessor import SCORE_MAX


class RiskSettings(BaseModel):
    model_config = ConfigDict(frozen=True)

    # A score at or above this is declined. 100 is out of reach: no payment is declined for its score.
    decline_at: Annotated[int, Field(ge=1, le=SCORE_MAX + 1)] = SCORE_MAX + 1
