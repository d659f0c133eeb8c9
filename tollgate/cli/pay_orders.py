"""What `tollgate pay` is asked to pay: read from a file or made up, and checked before anything is sent."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tollgate.errors import RejectedInput
from tollgate.ids import CHECKOUT_ID
from tollgate.money import AMOUNT_MAX, is_currency
from tollgate.status import AUTHORIZED, FAILED, REQUIRES_ACTION, SUCCEEDED, TRANSITIONS, StatusValue

FILE_LINES_MAX: Final = 1_000_000


def _checkout_id(value: str) -> str:
    if not CHECKOUT_ID.fullmatch(value):
        raise ValueError("must be 8–64 of A–Z, a–z, 0–9, _ and -")
    return value


def _currency(code: str) -> str:
    if not is_currency(code):
        raise ValueError(f"{code!r} is not an ISO 4217 currency")
    return code


CheckoutId = Annotated[str, AfterValidator(_checkout_id)]


class PaymentBody(BaseModel):
    """POST /v1/payments as the README documents it; the gateway checks it again, and more strictly."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    amount: Annotated[int, Field(ge=1, le=AMOUNT_MAX)]
    currency: Annotated[str, AfterValidator(_currency)]
    payment_method: Annotated[str, Field(min_length=1, max_length=255)]
    capture: Literal["automatic", "manual"] = "automatic"
    psp: str | None = None
    customer_id: Annotated[str, Field(max_length=64)] | None = None
    description: Annotated[str, Field(max_length=500)] | None = None
    return_url: Annotated[str, Field(max_length=2048)] | None = None
    metadata: dict[str, str] | None = None


@dataclass(frozen=True)
class Order:
    """One payment to make. `raw` is sent as it is; `body` is what it says."""

    checkout_id: str
    body: PaymentBody
    raw: bytes

    @property
    def expected(self) -> StatusValue:
        """Where it comes to rest by itself at the PSP simulator."""
        match self.body.payment_method:
            case "pm_declined":
                return FAILED
            case "pm_action":
                return REQUIRES_ACTION
            case _:
                return AUTHORIZED if self.body.capture == "manual" else SUCCEEDED


def acceptable(expected: StatusValue) -> frozenset[StatusValue]:
    """`expected` and what a later operation (capture, refund, cancel) may have made of it."""
    found = {expected}
    todo = [expected]
    while todo:
        following = TRANSITIONS[todo.pop()] - found - {FAILED}
        found |= following
        todo.extend(following)
    return frozenset(found)


def make_order(checkout_id: str, fields: dict[str, Any], where: str) -> Order:
    """Raises RejectedInput that says `where` and names every wrong field."""
    try:
        TypeAdapter(CheckoutId).validate_python(checkout_id, strict=True)
        body = PaymentBody.model_validate(fields)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or 'payment_checkout_id'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise RejectedInput(f"{where}: {problems}. Nothing was sent.") from None
    return Order(checkout_id, body, orjson.dumps(fields))


def read_orders(path: Path, rng: random.Random) -> list[Order]:
    """One JSON object a line; one without `payment_checkout_id` gets a new id; empty lines are passed over.

    Raises RejectedInput naming the first wrong line, before anything is sent.
    """
    orders: list[Order] = []
    line_of: dict[str, int] = {}
    for number, line in _lines(path):
        where = f"{path}, line {number}"
        order = _read_order(line, where, rng)
        if order.checkout_id in line_of:
            raise RejectedInput(
                f"{where}: {order.checkout_id} is the id of line {line_of[order.checkout_id]} already; "
                "every payment needs its own. Nothing was sent."
            )
        line_of[order.checkout_id] = number
        orders.append(order)
    if not orders:
        raise RejectedInput(f"{path} holds no payment. Write one JSON object a line.")
    return orders


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if number > FILE_LINES_MAX:
                    raise RejectedInput(f"{path} has more than {FILE_LINES_MAX} lines. Split it.")
                if line.strip():
                    yield number, line
    except OSError as error:
        raise RejectedInput(f"{path} can't be read ({error.strerror}). Nothing was sent.") from None


def _read_order(line: bytes, where: str, rng: random.Random) -> Order:
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise RejectedInput(f"{where}: not JSON ({error}). Nothing was sent.") from None
    if not isinstance(fields, dict):
        raise RejectedInput(f"{where}: not a JSON object. Nothing was sent.")
    checkout_id = fields.pop("payment_checkout_id", None) or new_checkout_id(rng)
    return make_order(checkout_id, fields, where)


def generate_orders(
    count: int,
    rng: random.Random,
    *,
    amount: int | None,
    currency: str,
    payment_method: str,
    capture: str,
) -> list[Order]:
    """`count` payments; without `amount`, of 1.00 to 999.99 each. The same seed makes the same payments."""
    return [
        make_order(
            new_checkout_id(rng),
            {
                "amount": amount if amount is not None else rng.randint(100, 99_999),
                "currency": currency,
                "payment_method": payment_method,
                "capture": capture,
            },
            f"payment {number}",
        )
        for number in range(1, count + 1)
    ]


def new_checkout_id(rng: random.Random) -> str:
    return str(UUID(int=rng.getrandbits(128), version=4))
