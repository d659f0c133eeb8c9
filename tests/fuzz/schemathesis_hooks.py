"""What no schema can say: the repeated id is the header's, and an amount is written as an integer."""

from __future__ import annotations

from typing import Any

import schemathesis

from gateway.admission import CHECKOUT_ID_HEADER
from tollgate.ids import CHECKOUT_ID


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: dict[str, Any]) -> None:
    if not isinstance(case.body, dict) or not case.headers:
        return
    amount = case.body.get("amount")
    if isinstance(amount, float) and amount.is_integer():
        case.body["amount"] = int(amount)
    repeated, named = case.body.get("payment_checkout_id"), case.headers.get(CHECKOUT_ID_HEADER)
    if isinstance(repeated, str) and CHECKOUT_ID.fullmatch(repeated) and named:
        case.body["payment_checkout_id"] = named
