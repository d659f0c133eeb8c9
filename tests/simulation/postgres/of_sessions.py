"""Statements of the inbox, of dead letters and of the relay's session, and which text means which of all."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from processor.storage import (
    attempts,
    budgets,
    dead_letters,
    inbox,
    intake,
    locks,
    operations,
    outbox,
    payments,
    requests,
    slices,
    turns,
)
from tests.simulation.postgres import of_budgets
from tests.simulation.postgres import of_operations as ops
from tests.simulation.postgres import of_payments as pay
from tests.simulation.postgres.of_payments import Column, operations_of, rows_of
from tests.simulation.postgres.server import Connection, Server, Statement
from tests.simulation.postgres.tables import Listed, Row, Transaction


def due(tx: Transaction, limit: int) -> list[Row]:
    rows = [r for r in tx.tables.inbox.values() if r["due_at"] is not None and r["due_at"] <= tx.now_us]
    rows.sort(key=lambda row: row["due_at"])
    return [Row(psp=row["psp"], event_id=row["event_id"]) for row in rows[:limit]]


def take(tx: Transaction, *columns: Column) -> list[Row]:
    rows = [tx.tables.inbox[key] for key in sorted(set(rows_of(columns))) if key in tx.tables.inbox]
    return [row for row in rows if row["due_at"] is not None and row["due_at"] <= tx.now_us]


def by_request(tx: Transaction, keys: Column) -> list[Row]:
    wanted = set(keys)
    return [row for row in tx.tables.requests.values() if row["idempotency_key"] in wanted]


def operations_told(tx: Transaction, *columns: Column) -> list[Row]:
    found = []
    for key in sorted(set(rows_of(columns))):
        of_payment = sorted(operations_of(tx, *key), key=lambda row: (row["created_at"], row["id"]))
        found += [Row(ops._claimed(tx, row) | {"operation_status": row["status"]}) for row in of_payment]
    return found


def references(tx: Transaction, *columns: Column) -> list[Row]:
    wanted = set(rows_of(columns))
    names = ("merchant", "checkout_id", "operation_id", "reference")
    return [
        Row((name, row[name]) for name in names)
        for row in tx.tables.inbox.values()
        if (row["merchant"], row["checkout_id"]) in wanted and row["result"] == "applied" and row["reference"]
    ]


def settle(tx: Transaction, *columns_and_rest: Any) -> list[Row]:
    *columns, now_us, references_told = columns_and_rest
    for row, reference in zip(rows_of(columns), references_told, strict=True):
        psp, event_id, result, after_s, merchant, checkout_id, operation_id = row
        before = tx.tables.inbox[psp, event_id]
        tx.change(
            tx.tables.inbox,
            (psp, event_id),
            tries=before["tries"] + 1,
            result=result,
            due_at=tx.now_us + round(after_s * 1e6) if result is None else None,
            applied_at=None if result is None else now_us,
            merchant=merchant,
            checkout_id=checkout_id,
            operation_id=operation_id,
            reference=reference,
        )
    return []


def any_open(tx: Transaction) -> list[Row]:
    return [Row(exists=bool(tx.tables.dead_letters))]


def open_letters(tx: Transaction, hashes: Column) -> list[Row]:
    wanted = set(hashes)
    return [
        Listed(key_hash=row["key_hash"], topic=key[0], partition=key[1], offset=key[2])
        for key, row in tx.tables.dead_letters.items()
        if row["key_hash"] in wanted
    ]


def set_aside(tx: Transaction, *columns_and_time: Any) -> list[Row]:
    *columns, _now_us = columns_and_time
    for topic, partition, offset, key_hash, error in rows_of(columns):
        tx.put(tx.tables.dead_letters, (topic, partition, offset), Row(key_hash=key_hash, error=error))
    return []


def _named(module: ModuleType, name: str) -> str:
    text: str = vars(module)[name]
    return text


def statements() -> dict[str, Statement]:
    """By their texts, as production has them now."""
    named: Final[list[tuple[ModuleType, dict[str, Statement]]]] = [
        (
            intake,
            {
                "_PAYMENTS": pay.insert_payments,
                "_OPERATIONS": pay.insert_operations,
                "_KNOWN": pay.known,
                "_SHARDS": pay.shards,
                "_RESENDS": pay.ask_resends,
                "_CONFLICTS": pay.conflicts,
                "_WEBHOOKS": pay.webhooks,
            },
        ),
        (
            payments,
            {
                "_TELL": pay.tell,
                "_SHOWN_OF": pay.shown_of,
                "_ADVANCE": pay.advance,
                "_AMEND": pay.amend,
                "_FIND": pay.find,
            },
        ),
        (
            outbox,
            {
                "_UNPUBLISHED": pay.unpublished,
                "_PUBLISHED": pay.mark_published,
                "_RESENDS": pay.owed_resends,
                "_RESENT": pay.mark_resent,
                "_PRUNE": pay.prune,
            },
        ),
        (
            operations,
            {
                "_CLAIMABLE": ops.claimable,
                "_CLAIMABLE_ELSEWHERE": ops.claimable,
                "_TAKEN": ops.taken,
                "_LEASE": ops.lease,
                "_LOCK_HELD": ops.lock_held,
                "_CONCLUDE": ops.conclude,
                "_SETTLE_PAYMENTS": ops.settle_payments,
                "_ANSWER": ops.answer,
                "_ANOMALIES": ops.anomalies,
                "_LATE_APPROVALS": ops.late_approvals,
            },
        ),
        (locks, {"_LOCK_PAYMENTS": ops.lock_payments, "_LOCK_VERSIONS": ops.lock_versions}),
        (
            attempts,
            {
                "_RENEW": ops.renew,
                "_REQUESTS": ops.insert_requests,
                "_ATTEMPTS": ops.insert_attempts,
                "_STORE_ASSESSMENTS": ops.store_assessments,
            },
        ),
        (
            requests,
            {
                "_LOCK": pay.lock,
                "_BY_KEY": ops.by_key,
                "_BY_ID": ops.by_id,
                "_STANDING": ops.standing,
                "_INSERT": ops.insert_operation,
                "_NEVER_EXECUTE": ops.never_execute,
            },
        ),
        (
            budgets,
            {
                "_RESERVE": of_budgets.reserve,
                "_MEND": of_budgets.mend,
                "_GIVE_BACK": of_budgets.give_back,
                "_WITHDRAW": of_budgets.withdraw,
                "_UNSENT_REQUEST": of_budgets.unsent_request,
            },
        ),
        (turns, {"_IN_TURN": ops.in_turn, "_CHOSEN": ops.chosen}),
        (
            inbox,
            {
                "_DUE": due,
                "_TAKE": take,
                "_BY_REQUEST": by_request,
                "_OPERATIONS": operations_told,
                "_REFERENCES": references,
                "_RAISE_TOKENS": ops.raise_tokens,
                "_SETTLE": settle,
            },
        ),
        (dead_letters, {"_ANY_OPEN": any_open, "_OPEN": open_letters, "_SET_ASIDE": set_aside}),
    ]
    return {_named(module, name): act for module, taught in named for name, act in taught.items()}


class Session(Connection):
    """One with advisory locks, which it holds until it ends."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._own: dict[str, Callable[..., list[Row]]] = {
            _named(slices, "_ENTER"): self._enter,
            _named(slices, "_LIVE"): self._live,
            _named(slices, "_TRY"): self._try,
            _named(slices, "_FREE"): self._free,
            "SELECT 1": lambda: [],
        }

    async def fetch(self, text: str, *args: Any) -> list[Row]:
        act = self._own.get(text)
        if act is None:
            return await super().fetch(text, *args)
        await self._travel()
        self._check()
        rows = act(*args)
        await self._travel()
        self._check()
        return rows

    def _enter(self, lock: int) -> list[Row]:
        self.locks[lock, 0] = None
        return []

    def _live(self, lock: int) -> list[Row]:
        return [Row(count=sum((lock, 0) in one.locks for one in self.server.sessions))]

    def _try(self, lock: int, number: int) -> list[Row]:
        is_held = any((lock, number) in one.locks for one in self.server.sessions)
        if not is_held:
            self.locks[lock, number] = None
        return [Row(locked=not is_held)]

    def _free(self, lock: int, number: int) -> list[Row]:
        self.locks.pop((lock, number), None)
        return []
