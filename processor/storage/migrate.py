"""Brings the schema up to date at start. Idempotent; several processors may start at once; a crash is
harmless.

yoyo applies each plain .sql file in a transaction of its own. Its lock is a row, which a killed process would
leave behind; the lock that decides here is an advisory one, which ends with its connection.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import psycopg
from yoyo import get_backend, read_migrations

from tollgate.errors import OperationalError

MIGRATIONS: Final = Path(__file__).with_name("migrations")
_ADVISORY_KEY: Final = 0x746F6C6C  # "toll"
_CONNECT_TIMEOUT_S: Final = 5
_LOCK_TIMEOUT_S: Final = 30


def migrate(dsn: str) -> int:
    """Applies what is missing and returns how many. Blocking. Raises OperationalError when Postgres can't."""
    try:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=_CONNECT_TIMEOUT_S) as guard:
            guard.execute(f"SET lock_timeout = '{_LOCK_TIMEOUT_S}s'")
            guard.execute("SELECT pg_advisory_lock(%s)", (_ADVISORY_KEY,))
            return _apply(dsn)
    except psycopg.OperationalError as error:
        raise OperationalError(
            f"Postgres' schema could not be brought up to date: {_first_line(error)}. It is tried again."
        ) from error


def _apply(dsn: str) -> int:
    backend = get_backend(_yoyo_uri(dsn))
    try:
        backend.break_lock()  # a row from a killed process: the advisory lock says that nobody holds it
        missing = backend.to_apply(read_migrations(str(MIGRATIONS)))
        with backend.lock():
            backend.apply_migrations(missing)
        return len(missing)
    finally:
        backend.connection.close()


def _yoyo_uri(dsn: str) -> str:
    _scheme, _, rest = dsn.partition("://")
    return f"postgresql+psycopg://{rest}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
