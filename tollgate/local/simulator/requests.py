"""What the simulator accepts, and how it says no. Pydantic finds every wrong field at once."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from tollgate.money import AMOUNT_MAX, is_currency

IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")


def _known_currency(code: str) -> str:
    if not is_currency(code):
        raise ValueError("not an ISO 4217 code")
    return code


Amount = Annotated[int, Field(ge=1, le=AMOUNT_MAX)]


class _Order(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ChargeOrder(_Order):
    """POST /v1/charges. `reference` is the caller's own name for the charge, to look it up by."""

    checkout_id: Annotated[str, Field(min_length=1, max_length=64)]
    merchant: Annotated[str, Field(min_length=1, max_length=32)]
    amount: Amount
    currency: Annotated[str, AfterValidator(_known_currency)]
    capture: Literal["automatic", "manual"] = "automatic"
    payment_method: Annotated[str, Field(min_length=1, max_length=255)]
    reference: Annotated[str, Field(min_length=1, max_length=255)]


class AmountOrder(_Order):
    """POST …/capture and …/refunds: without an amount, all that is left."""

    amount: Amount | None = None


class CancelOrder(_Order):
    """POST …/cancel: nothing to say."""


class Refusal(Exception):
    """An answer without effect that is not kept: the same key may be used again."""

    def __init__(
        self, status: int, code: str, message: str, fields: list[dict[str, str]] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.fields = fields or []

    def body(self) -> bytes:
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.fields:
            error["fields"] = self.fields
        return orjson.dumps({"error": error})


def invalid_request(error: ValidationError) -> Refusal:
    fields = [
        {"field": ".".join(str(part) for part in problem["loc"]), "message": problem["msg"]}
        for problem in error.errors(include_input=False, include_url=False, include_context=False)
    ]
    return Refusal(400, "invalid_request", "The body is not what this call takes.", fields)


def not_found(what: str) -> Refusal:
    return Refusal(404, "not_found", f"There is no {what}.")


def checked_idempotency_key(header: str | None) -> str:
    """Raises Refusal when it is absent or not 1-255 visible ASCII characters."""
    if header is None or not IDEMPOTENCY_KEY.fullmatch(header):
        raise Refusal(
            400,
            "missing_idempotency_key",
            "An Idempotency-Key of 1-255 visible ASCII characters is required.",
        )
    return header
