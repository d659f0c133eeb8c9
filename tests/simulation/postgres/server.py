"""A Postgres of the simulation's own: the statements of processor/storage over tables in memory.

The Python of processor/storage runs as it is; only the connection is another. A statement is known by its
text, so one that is new there is an error here until it is taught. Transactions are serial: each has the
tables alone from its first statement to its end, and while it waits for the network nobody else does
anything in the database. What is lost by that (two transactions that interleave) the tests on a real Postgres
have.

Faults: no connection; a connection that breaks before a statement; one that breaks at the commit, before or
after it took effect, and nobody can tell which; a session that stands still in a transaction is ended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

import asyncpg

from tests.simulation.loop import Process, VirtualLoop, current
from tests.simulation.postgres.tables import Row, Tables, Transaction
from tests.simulation.trace import Trace

Statement = Callable[..., list[Row]]

_IDLE_US: Final = 3_000_000
_WAIT_S: Final = 5.0


class Server:
    def __init__(
        self, loop: VirtualLoop, random: Random, trace: Trace, statements: dict[str, Statement]
    ) -> None:
        self.loop = loop
        self.random = random
        self.trace = trace
        self.statements = statements
        self.process = loop.process("postgres")
        self.tables = Tables()
        self.up = True
        self.breaks = 0.0  # a share of all statements
        self.unheard = 0.0  # a share of all commits
        self.sessions: dict[Connection, None] = {}
        self.on_commit: Callable[[], None] = lambda: None
        self._holder: Connection | None = None
        self._waiting: deque[tuple[asyncio.Future[None], Connection]] = deque()

    def goes_down(self) -> None:
        self.up = False
        for session in list(self.sessions):
            session.broken()

    def dies(self, process: Process) -> None:
        """Its sessions end with it."""
        for session in [one for one in self.sessions if one.owner is process]:
            session.broken()

    async def begin(self, connection: Connection) -> Transaction:
        if self._holder is not None:
            turn: asyncio.Future[None] = self.loop.create_future()
            self._waiting.append((turn, connection))
            try:
                async with asyncio.timeout(_WAIT_S):
                    await turn
            except TimeoutError:
                if self._holder is connection:
                    self.release(connection)
                raise asyncpg.LockNotAvailableError("canceling statement due to lock timeout") from None
            except asyncio.CancelledError:
                if self._holder is connection:
                    self.release(connection)
                raise
        else:
            self._holder = connection
        transaction = Transaction(self.tables, self.process.now_us(), self.process.now_us)
        connection.transaction_now = transaction
        connection.ends = self.loop.post(self.process, _IDLE_US, self._end_idle, connection, transaction)
        return transaction

    def release(self, connection: Connection) -> None:
        connection.transaction_now = None
        if connection.ends is not None:
            connection.ends.cancel()
        if self._holder is not connection:
            return
        self._holder = None
        while self._waiting:
            turn, following = self._waiting.popleft()
            if following.owner.alive and not turn.done():
                self._holder = following
                self.loop.post(following.owner, 20, _grant, turn)
                self.loop.post(self.process, _IDLE_US, self._never_came, following)
                return

    def _never_came(self, connection: Connection) -> None:
        if self._holder is connection and connection.transaction_now is None:
            connection.broken()

    def _end_idle(self, connection: Connection, transaction: Transaction) -> None:
        if connection.transaction_now is transaction:
            connection.broken()

    def carry_out(self, transaction: Transaction, text: str, args: Sequence[Any]) -> list[Row]:
        statement = self.statements.get(text)
        if statement is None:
            raise AssertionError(f"the simulated Postgres was not taught this statement: {text}")
        return statement(transaction, *args)


def _grant(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


class Connection:
    """What processor/storage uses of asyncpg's, for one session."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.owner = current()
        self.alive = True
        self.transaction_now: Transaction | None = None
        self.ends: asyncio.Handle | None = None  # of a transaction that stands idle
        self.in_block = False
        self.locks: dict[tuple[int, int], None] = {}  # advisory, of the session
        server.sessions[self] = None

    def broken(self) -> None:
        """The server ends the session; its transaction is as if it had never been."""
        if self.alive:
            self.alive = False
            if self.transaction_now is not None:
                self.transaction_now.roll_back()
            self.locks.clear()
            self.server.release(self)
            self.server.sessions.pop(self, None)

    terminate = broken

    def transaction(self) -> _Block:
        return _Block(self)

    async def fetch(self, text: str, *args: Any) -> list[Row]:
        await self._travel()
        self._check()
        if self.in_block:
            assert self.transaction_now is not None
            return self.server.carry_out(self.transaction_now, text, args)
        transaction = await self.server.begin(self)
        try:
            self._check()
            rows = self.server.carry_out(transaction, text, args)
        except BaseException:
            transaction.roll_back()
            self.server.release(self)
            raise
        await self.commit(transaction)
        return rows

    async def fetchrow(self, text: str, *args: Any) -> Row | None:
        rows = await self.fetch(text, *args)
        return rows[0] if rows else None

    async def fetchval(self, text: str, *args: Any) -> Any:
        rows = await self.fetch(text, *args)
        return next(iter(rows[0].values())) if rows else None

    async def execute(self, text: str, *args: Any) -> None:
        await self.fetch(text, *args)

    async def commit(self, transaction: Transaction) -> None:
        """Raises when it was not heard of: then it may have been, or not."""
        self._check()
        unheard = self.server.unheard and self.server.random.random() < self.server.unheard
        if unheard and self.server.random.random() < 0.5:
            self.broken()
            raise _gone()
        self.server.release(self)
        self.server.on_commit()
        if unheard:
            self.broken()
            raise _gone()
        await self._travel()

    async def _travel(self) -> None:
        await asyncio.sleep((int(self.server.random.random() * 400) + 50) / 1e6)

    def _check(self) -> None:
        if self.alive and self.server.breaks and self.server.random.random() < self.server.breaks:
            self.broken()
        if not self.alive:
            raise _gone()


def _gone() -> asyncpg.ConnectionDoesNotExistError:
    return asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")


class _Block:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def __aenter__(self) -> None:
        await self._connection.server.begin(self._connection)
        self._connection.in_block = True

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        connection = self._connection
        connection.in_block = False
        transaction = connection.transaction_now
        if transaction is None:  # the server ended it
            if kind is None:
                raise _gone()
            return
        if kind is not None:
            transaction.roll_back()
            connection.server.release(connection)
            return
        await connection.commit(transaction)


class Pool:
    """A connection for each use, opened anew after it broke."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._idle: list[Connection] = []

    def acquire(self) -> _Acquired:
        return _Acquired(self)

    async def fetch(self, text: str, *args: Any) -> list[Row]:
        async with self.acquire() as connection:
            return await connection.fetch(text, *args)

    async def fetchrow(self, text: str, *args: Any) -> Row | None:
        async with self.acquire() as connection:
            return await connection.fetchrow(text, *args)

    async def fetchval(self, text: str, *args: Any) -> Any:
        async with self.acquire() as connection:
            return await connection.fetchval(text, *args)

    async def execute(self, text: str, *args: Any) -> None:
        async with self.acquire() as connection:
            await connection.execute(text, *args)

    async def take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.alive:
                return connection
        return await open_session(self._server)

    def give_back(self, connection: Connection) -> None:
        if connection.alive:
            self._idle.append(connection)


class _Acquired:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._connection: Connection | None = None

    async def __aenter__(self) -> Connection:
        self._connection = await self._pool.take()
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        if self._connection is not None:
            self._pool.give_back(self._connection)


async def open_session(server: Server) -> Connection:
    await arrive(server)
    return Connection(server)


async def arrive(server: Server) -> None:
    """Raises ConnectionRefusedError."""
    await asyncio.sleep((int(server.random.random() * 1_000) + 100) / 1e6)
    if not server.up:
        raise ConnectionRefusedError("connection refused")
