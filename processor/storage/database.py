"""The pool of connections to Postgres, and the translation of its errors into the two families that matter.

Times cross as integers, microseconds since the Unix epoch: what is stored is what was handed in, to the
microsecond, and no datetime object is made on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import asyncpg

from tollgate.errors import OperationalError, RejectedInput

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

# Quoted: asyncpg's classes are generic for the type checker only.
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

CONNECT_TIMEOUT_S: Final = 5.0
COMMAND_TIMEOUT_S: Final = 10.0

# What no retry can mend, a key too long for its index included.
_OF_THE_CONTENT: Final = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    ValueError,
)

_POSTGRES_EPOCH_US: Final = 946_684_800_000_000  # 2000-01-01T00:00:00Z

# Every hot statement is driven by a handful of keys into large tables. A plan cached while the tables were
# empty would scan or hash them whole for ever; these leave the planner only the plan that stays right.
_SESSION: Final = {
    "application_name": "tollgate-processor",
    "timezone": "UTC",
    "jit": "off",
    # Otherwise a batch smaller than the planner's guess of an array is planned anew each time.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_bitmapscan": "off",  # it would sort the outbox's whole backlog to find the oldest rows
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "30s",
}


async def open_pool(dsn: str, size_max: int) -> Pool:
    """Raises OperationalError when Postgres can't be reached now."""
    with translated("connecting"):
        return await asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=size_max,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=COMMAND_TIMEOUT_S,
            server_settings=_SESSION,
            init=_prepare_connection,
            reset=_leave_as_it_is,
        )


async def connect(dsn: str) -> asyncpg.Connection[asyncpg.Record]:
    """One connection of its own, for what belongs to a session (advisory locks). Unused for 10 s it is ended
    by Postgres: a process that stands still, or whose machine is gone, must not keep its locks.
    """
    with translated("connecting"):
        connection = await asyncpg.connect(
            dsn,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=COMMAND_TIMEOUT_S,
            server_settings=_SESSION | {"idle_session_timeout": "10s"},
        )
        await _prepare_connection(connection)
        return connection


async def keep_alive(connection: Connection) -> None:
    """Uses the session. Raises OperationalError when it is gone."""
    with translated("keeping a session"):
        await connection.execute("SELECT 1")


# The last is what asyncpg says of a connection that broke in the middle of an exchange.
_OF_THE_CONNECTION: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    OSError,
    TimeoutError,
    asyncpg.InternalClientError,
)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Content that Postgres refuses becomes RejectedInput; everything else OperationalError, to be
    retried.
    """
    try:
        yield
    except _OF_THE_CONTENT as error:
        raise RejectedInput(f"Postgres refused the content while {doing}: {_why(error)}.") from error
    except _OF_THE_CONNECTION as error:
        reason = str(error) or type(error).__name__
        raise OperationalError(f"Postgres failed while {doing}: {reason}. It is tried again.") from error


def _why(error: Exception) -> str:
    """Without the content, which is a customer's: only a broken constraint is told in Postgres' own words,
    and of those not the detail, which shows the row.
    """
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        return str(error.args[0])
    return type(error).__name__


def columns_of(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    """Rows as unnest wants them: one list a column. There is at least one row."""
    return [list(column) for column in zip(*rows, strict=True)]


async def _leave_as_it_is(_connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Nobody who borrows a connection sets anything in its session, or keeps a lock, past its transaction:
    there is nothing to reset, which would be a round trip and four statements to parse for each use.
    """


async def _prepare_connection(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    await connection.set_type_codec(
        "timestamptz",
        schema="pg_catalog",
        encoder=lambda at_us: (at_us - _POSTGRES_EPOCH_US,),
        decoder=lambda value: value[0] + _POSTGRES_EPOCH_US,
        format="tuple",
    )
