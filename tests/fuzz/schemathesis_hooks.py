"""What no schema can say: the repeated id is the header's, an amount is written as an integer, and a cursor
was given by the list.
"""

from __future__ import annotations

import re
from typing import Any

import schemathesis

from gateway.admission import CHECKOUT_ID_HEADER
from gateway.list_requests import CURSOR_PATTERN
from gateway.openapi.examples import CURSOR, VAULT_CURSOR
from tollgate.ids import CHECKOUT_ID


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: dict[str, Any]) -> None:
    drawn = case.query.get("cursor") if case.query else None
    if isinstance(drawn, str) and re.fullmatch(CURSOR_PATTERN, drawn):
        case.query["cursor"] = CURSOR if case.operation.path == "/v1/payments" else VAULT_CURSOR
    if not isinstance(case.body, dict) or not case.headers:
        return
    amount = case.body.get("amount")
    if isinstance(amount, float) and amount.is_integer():
        case.body["amount"] = int(amount)
    repeated, named = case.body.get("payment_checkout_id"), case.headers.get(CHECKOUT_ID_HEADER)
    if isinstance(repeated, str) and CHECKOUT_ID.fullmatch(repeated) and named:
        case.body["payment_checkout_id"] = named
