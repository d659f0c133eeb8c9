"""What the PSP simulator's webhooks say. Pure.

`{"id", "type": "charge", "charge": …}` tells how a charge stands; `{"id", "type": "operation",
"operation": …, "idempotency_key"}` what an operation came to. Both are as the simulator answers them.
"""

from __future__ import annotations

from typing import Any

import orjson

from processor.psp.interface import ActionRequired, Approved, Declined, Done, OperationKind
from processor.psp.webhook import Irrelevant, Reading, Report, Subject, Unreadable

_KIND = {"capture": OperationKind.CAPTURE, "cancel": OperationKind.CANCEL, "refund": OperationKind.REFUND}


def read_simulator_webhook(body: bytes) -> Reading:
    try:
        event = orjson.loads(body)
        match event["type"]:
            case "charge":
                return _read_charge(event["charge"])
            case "operation":
                return _read_operation(event["operation"], event["idempotency_key"])
            case _:
                return Irrelevant("an event of another type")
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return Unreadable("the event is not as the simulator documents it")


def _read_charge(charge: dict[str, Any]) -> Reading:
    subject = Subject(payment_key=_text(charge["reference"]))
    reference, amount, currency = _text(charge["id"]), _amount(charge["amount"]), _text(charge["currency"])
    match charge["status"]:
        case "succeeded" | "authorized" as status:
            approved = Approved(reference, amount, currency, captured=status == "succeeded")
            return Report(subject, OperationKind.PAYMENT, approved)
        case "declined":
            error = charge["error"]
            declined = Declined(_text(error["code"]), _text(error["message"]), reference)
            return Report(subject, OperationKind.PAYMENT, declined)
        case "requires_action":
            return Report(subject, OperationKind.PAYMENT, ActionRequired(reference, _text(charge["url"])))
        case _:
            return Irrelevant("the charge has no outcome yet, or an operation ended it")


def _read_operation(operation: dict[str, Any], request_key: Any) -> Reading:
    done = Done(_text(operation["id"]), _amount(operation["amount"]), _text(operation["currency"]))
    return Report(Subject(request_key=_text(request_key)), _KIND[operation["type"]], done)


def _text(value: Any) -> str:
    """What Postgres can't store is nothing that the simulator writes."""
    if not isinstance(value, str) or "\0" in value:
        raise TypeError("not a text")
    return value


def _amount(value: Any) -> int:
    if type(value) is not int:
        raise TypeError("not an amount")
    return value
