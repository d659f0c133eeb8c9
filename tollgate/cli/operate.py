"""`tollgate capture | cancel | refund`: an operation on a payment, asked for under one key, until its end.

Exit 0: it succeeded; 1: it failed, was refused, or was not seen to its end. What is cut off is asked for
again with the same --key: it has one effect however often it is asked for.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Annotated, Any, Final

import aiohttp
import orjson
import typer

from tollgate.cli.options import DataDir
from tollgate.cli.pay import running_stack
from tollgate.errors import OperationalError, RejectedInput
from tollgate.local.stack_json import StackJson

_CALL_TIMEOUT_S: Final = 10.0
_EVERY_S: Final = 0.2

Id = Annotated[str, typer.Argument(metavar="ID", help="The payment's checkout id.")]
Amount = Annotated[int | None, typer.Option(min=1, help="Minor units. Without it: all there is.")]
Key = Annotated[str | None, typer.Option(help="Idempotency-Key; made up when it is not given.")]
Patience = Annotated[float, typer.Option("--timeout", min=1, help="Seconds until the operation has ended.")]


def capture(
    checkout_id: Id, amount: Amount = None, key: Key = None, timeout: Patience = 60, data_dir: DataDir = None
) -> None:
    """Capture an authorized payment, or a part of it; the rest is released."""
    _operate(running_stack(data_dir), checkout_id, "capture", {"amount": amount}, key, timeout)


def cancel(checkout_id: Id, key: Key = None, timeout: Patience = 60, data_dir: DataDir = None) -> None:
    """Cancel a payment that was not captured."""
    _operate(running_stack(data_dir), checkout_id, "cancel", {}, key, timeout)


def refund(
    checkout_id: Id,
    amount: Amount = None,
    reason: Annotated[str | None, typer.Option(help="In your own words.")] = None,
    key: Key = None,
    timeout: Patience = 60,
    data_dir: DataDir = None,
) -> None:
    """Refund a captured payment, or a part of it."""
    body = {"amount": amount, "reason": reason}
    _operate(running_stack(data_dir), checkout_id, "refunds", body, key, timeout)


def must_ask_again(status: int, document: dict[str, Any]) -> bool:
    """Whether nothing was refused: no answer (0), too much to do, or the payment is still on its way."""
    return status in (0, 429) or status >= 500 or document.get("code") == "not_yet_processed"


def _operate(
    stack: StackJson, checkout_id: str, what: str, body: dict[str, Any], key: str | None, timeout_s: float
) -> None:
    key = key or secrets.token_hex(16)
    operation = asyncio.run(_followed(stack, f"/v1/payments/{checkout_id}", what, body, key, timeout_s))
    said = f"{operation['type']} of {operation['amount']}, {operation['id']}: {operation['status']}"
    if operation["status"] != "succeeded":
        failure = operation["failure"] or {"code": "pending", "message": f"Ask again with --key {key}."}
        raise OperationalError(f"{said}. {failure['code']}: {failure['message']}")
    typer.echo(said)


async def _followed(
    stack: StackJson, path: str, what: str, body: dict[str, Any], key: str, timeout_s: float
) -> dict[str, Any]:
    """The operation as it was seen last."""
    deadline = time.monotonic() + timeout_s
    async with aiohttp.ClientSession(
        stack.base_url,
        headers={"Authorization": f"Bearer {stack.api_key}", "Idempotency-Key": key},
        timeout=aiohttp.ClientTimeout(total=_CALL_TIMEOUT_S),
    ) as session:
        operation = await _answered(session, "POST", f"{path}/{what}", body, key, deadline)
        while operation["status"] == "pending" and time.monotonic() < deadline:
            await asyncio.sleep(_EVERY_S)
            address = f"{path}/operations/{operation['id']}"
            operation = await _answered(session, "GET", address, None, key, deadline)
        return operation


async def _answered(
    session: aiohttp.ClientSession,
    method: str,
    path: str,
    body: dict[str, Any] | None,
    key: str,
    deadline: float,
) -> dict[str, Any]:
    while True:
        status, document = await _call(session, method, path, body)
        if status in (200, 202):
            return document
        problem = f"{status or 'No answer'} {document.get('code', '')}: {document.get('detail', '')}"
        problem += "".join(f" {wrong['field']} {wrong['message']}." for wrong in document.get("errors", ()))
        if not must_ask_again(status, document):
            raise RejectedInput(problem)
        if time.monotonic() >= deadline:
            raise OperationalError(f"{problem} Ask again with --key {key}.")
        await asyncio.sleep(_EVERY_S)


async def _call(
    session: aiohttp.ClientSession, method: str, path: str, body: dict[str, Any] | None
) -> tuple[int, dict[str, Any]]:
    """(status, document); status 0: there was no answer."""
    try:
        async with session.request(method, path, json=body) as answer:
            document = orjson.loads(await answer.read())
            return answer.status, document if isinstance(document, dict) else {}
    except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError) as error:
        return 0, {"detail": f"{type(error).__name__}."}
