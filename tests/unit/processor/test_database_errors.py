"""What a broken connection says is never the end of the processor: it is tried again on another one."""

from __future__ import annotations

import asyncpg
import pytest

from processor.storage.database import translated
from tollgate.errors import OperationalError, RejectedInput


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.InterfaceError("the underlying connection is closed"),
        ConnectionResetError(),
        TimeoutError(),
    ],
)
def test_a_connection_that_broke_is_tried_again(error: Exception) -> None:
    with pytest.raises(OperationalError, match="tried again"), translated("reading"):
        raise error


def test_content_that_postgres_refuses_is_not_tried_again() -> None:
    with pytest.raises(RejectedInput), translated("writing"):
        raise asyncpg.NotNullViolationError("null value")
