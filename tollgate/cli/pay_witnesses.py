"""What Postgres and the PSP simulator say about a set of payments, for `verify_payments`.

Either may be on its way back from a crash when it is asked: reading is tried again until a deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import aiohttp
import orjson

from tollgate.cli.proof.testimony import EXECUTING
from tollgate.cli.verify_payments import Effect, Row
from tollgate.clock import rfc3339
from tollgate.errors import OperationalError

PATIENCE_S: Final = 30.0
_AGAIN_AFTER_S: Final = 0.5
_IDS_PER_QUERY: Final = 5000
_CALL_TIMEOUT_S: Final = 60.0
_CLOCK_SLACK_US: Final = 60_000_000

_ROWS = """
    SELECT checkout_id, status, amount, currency, failure_code
    FROM payments WHERE merchant = $1 AND checkout_id = ANY($2)
"""

Found = TypeVar("Found")


async def read_rows(dsn: str, merchant: str, checkout_ids: Sequence[str]) -> dict[str, Row]:
    """By checkout id. Raises OperationalError when Postgres can't be read within `PATIENCE_S`."""
    import asyncpg

    async def read() -> dict[str, Row]:
        connection = await asyncpg.connect(dsn, timeout=5, command_timeout=_CALL_TIMEOUT_S)
        try:
            rows: dict[str, Row] = {}
            for start in range(0, len(checkout_ids), _IDS_PER_QUERY):
                ids = checkout_ids[start : start + _IDS_PER_QUERY]
                for row in await connection.fetch(_ROWS, merchant, list(ids)):
                    rows[row["checkout_id"]] = Row(
                        row["status"], row["amount"], row["currency"], row["failure_code"]
                    )
            return rows
        finally:
            await connection.close(timeout=5)

    return await _persist(read, (asyncpg.PostgresError, asyncpg.InterfaceError, OSError), "Postgres")


async def read_ledger(url: str, since_us: int) -> dict[str, Any]:
    """The simulator's /_ledger from a minute before `since_us`. Raises OperationalError like `read_rows`."""

    async def read() -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=_CALL_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session:
            parameters = {"since": rfc3339(max(0, since_us - _CLOCK_SLACK_US))}
            async with session.get(f"{url.rstrip('/')}/_ledger", params=parameters) as response:
                ledger: dict[str, Any] = orjson.loads(await response.read())
                return ledger

    return await _persist(read, (aiohttp.ClientError, OSError), "the PSP simulator")


def executing_effects(ledger: dict[str, Any], merchant: str) -> dict[str, list[Effect]]:
    """`merchant`'s charges and authorizations, by checkout id."""
    effects: dict[str, list[Effect]] = {}
    for effect in ledger["effects"]:
        if effect["type"] in EXECUTING and effect["merchant"] == merchant:
            found = Effect(effect["type"], effect["amount"], effect["currency"])
            effects.setdefault(effect["checkout_id"], []).append(found)
    return effects


async def _persist(
    read: Callable[[], Awaitable[Found]], failures: tuple[type[Exception], ...], whom: str
) -> Found:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_S
    while True:
        try:
            return await read()
        except failures as error:
            if loop.time() + _AGAIN_AFTER_S > deadline:
                raise OperationalError(
                    f"{whom} could not be read for {PATIENCE_S:g} s ({type(error).__name__}: {error}). "
                    "Look at `tollgate status`."
                ) from error
        await asyncio.sleep(_AGAIN_AFTER_S)
