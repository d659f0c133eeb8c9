"""`tollgate payments`: operations of which nobody but a person can say how they ended.

Nothing here is ever sent to a PSP. Exit 0: done; 1: it could not be done; 2: it was refused, nothing changed.
"""

from __future__ import annotations

import asyncio
import getpass
import socket
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from tollgate.cli.options import DataDir
from tollgate.cli.services import Services, find_services
from tollgate.clock import SystemClock, rfc3339
from tollgate.errors import RejectedInput
from tollgate.ids import PAYMENT_OPERATION, split_payment_key

if TYPE_CHECKING:
    from processor.storage.database import Pool
    from processor.storage.parked import EvidenceCall, ParkedOperation

EXIT_REFUSED: Final = 2

app = typer.Typer(
    help="Operations in doubt past what the PSP remembers: what is known of them, and a person's decision.",
    no_args_is_help=True,
)

T = TypeVar("T")


class Found(StrEnum):
    """What a person has found at the PSP."""

    executed = "executed"
    not_executed = "not_executed"


@app.command()
def parked(
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 100,
    data_dir: DataDir = None,
) -> None:
    """Each operation that is parked, why, and every call about it with the PSP's answer as it was stored."""
    from processor.storage.parked import parked_operations

    found = _with_postgres(
        find_services(data_dir), lambda pool: parked_operations(pool, ("", "", ""), limit + 1)
    )
    for operation in found[:limit]:
        for line in _described(operation):
            typer.echo(line)
    more = "; more with --limit" if len(found) > limit else ""
    typer.echo(f"{len(found[:limit])} parked{more}" if found else "nothing is parked")


@app.command()
def resolve(
    payment: Annotated[str, typer.Argument(help="merchant/checkout id, as `parked` shows it.")],
    found: Annotated[Found, typer.Option("--as", help="What stands at the PSP.")],
    because: Annotated[str, typer.Option("--because", help="How that is known; kept with the decision.")],
    operation: Annotated[
        str, typer.Option("--operation", help="op_…; without it the payment's own execution.")
    ] = PAYMENT_OPERATION,
    psp_reference: Annotated[
        str, typer.Option("--psp-reference", help="The PSP's name for what was executed.")
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Record what a person has found out. The payment goes on as if the PSP had said so; nothing is sent."""
    from processor.parked import Verdict, Word
    from processor.storage.parked import resolve_parked

    try:
        merchant, checkout_id = split_payment_key(payment)
    except ValueError:
        raise typer.BadParameter("it is merchant/checkout id", param_hint="PAYMENT") from None
    if not because.strip():
        raise typer.BadParameter("say how it is known", param_hint="--because")
    if not yes:
        typer.confirm(f"{payment}, operation {operation}, ends as {found.value}, for good?", abort=True)
    word = Word(Verdict(found.value), psp_reference, because, f"{getpass.getuser()}@{socket.gethostname()}")
    key = merchant, checkout_id, operation
    try:
        number, decision = _with_postgres(
            find_services(data_dir), lambda pool: resolve_parked(pool, key, word, SystemClock().now_us())
        )
    except RejectedInput as error:
        typer.echo(f"tollgate: {error.message}", err=True)
        raise typer.Exit(EXIT_REFUSED) from None
    version = (
        f"version {decision.payment.version} of the payment" if decision.payment else "the operation alone"
    )
    typer.echo(f"Resolution {number}: {payment}, operation {operation}, {found.value}: {version}.")


def _with_postgres(services: Services, ask: Callable[[Pool], Awaitable[T]]) -> T:
    from processor.storage.database import open_pool

    async def asked() -> T:
        pool = await open_pool(services.postgres_dsn, 1)
        try:
            return await ask(pool)
        finally:
            await pool.close()

    return asyncio.run(asked())


def _described(operation: ParkedOperation) -> list[str]:
    merchant, checkout_id, operation_id = operation.key
    reference = f", {operation.psp} calls it {operation.psp_reference}" if operation.psp_reference else ""
    return [
        f"{merchant}/{checkout_id} operation {operation_id}: {operation.kind} of {operation.amount} "
        f"{operation.currency} at {operation.psp}, asked for {rfc3339(operation.created_at_us)}",
        f"  parked: {operation.reason}",
        f"  the payment is {operation.status}{reference}",
        *(f"  {_call(call)}" for call in operation.calls),
        "",
    ]


def _call(call: EvidenceCall) -> str:
    answer = call.outcome or "no answer"
    if call.answered_at_us is not None:
        answer += f" at {rfc3339(call.answered_at_us)}{', late' if call.is_late else ''}"
    return (
        f"{rfc3339(call.sent_at_us)} {call.kind} {call.step} under {call.idempotency_key}: {answer}"
        f"{f' {call.evidence}' if call.evidence else ''}"
    )
