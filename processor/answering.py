"""How the services for the shards answer: refusals as answers, errors as gRPC codes, pages within bounds."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final, TypeVar

import grpc

from processor.operation_request import RefusalCode, Refused
from tollgate.errors import OperationalError, RejectedInput
from tollgate.v1 import ledger_pb2
from tollgate.v1.ledger_pb2 import Refusal

LIST_MAX: Final = 100
# A code that the proto doesn't know fails here, at import.
_CODE: Final = {code: ledger_pb2.RefusalCode.Value(f"REFUSAL_CODE_{code.name}") for code in RefusalCode}

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
T = TypeVar("T")


async def answered(context: grpc.aio.ServicerContext[RequestT, ResponseT], answer: Awaitable[T]) -> T:
    """Postgres down: UNAVAILABLE. What no shard sends: INVALID_ARGUMENT."""
    try:
        return await answer
    except OperationalError as error:
        await context.abort(grpc.StatusCode.UNAVAILABLE, error.message)
    except RejectedInput as error:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)


def refusal(refused: Refused) -> Refusal:
    return Refusal(code=_CODE[refused.code], message=refused.message)


def bounded(limit: int) -> int:
    return min(max(limit, 1), LIST_MAX)
