"""Statements of budgets, and of what a forfeited slot gives back, each in the words of its SQL."""

from __future__ import annotations

from typing import Any

from tests.simulation.postgres.of_payments import Column, rows_of
from tests.simulation.postgres.tables import Row, Transaction


def reserve(tx: Transaction, psp: str, seconds: float, horizon_s: float) -> list[Row]:
    now_us, taken_us = tx.clock_us(), round(seconds * 1e6)
    row = tx.tables.budgets.get(psp)
    if row is None:
        next_at = now_us + taken_us
    elif row["next_at"] <= now_us + round(horizon_s * 1e6):
        next_at = max(row["next_at"], now_us) + taken_us
    else:
        return []
    tx.put(tx.tables.budgets, psp, Row(next_at=next_at))
    return [Row(first_in_s=(next_at - taken_us - now_us) / 1e6)]


def mend(tx: Transaction, psp: str, ahead_max_s: float) -> list[Row]:
    row = tx.tables.budgets.get(psp)
    if row is None:
        return []
    most = tx.clock_us() + round(ahead_max_s * 1e6)
    clamped = row["next_at"] > most
    ahead_s = (row["next_at"] - tx.clock_us()) / 1e6
    if clamped:
        tx.put(tx.tables.budgets, psp, Row(next_at=most))
    return [Row(ahead_s=ahead_s, clamped=clamped)]


def give_back(tx: Transaction, *columns: Column) -> list[Row]:
    for *key, token in rows_of(columns):
        row = tx.tables.operations.get(tuple(key))
        if row is not None and row["fencing_token"] == token and row["status"] == "pending":
            tx.change(tx.tables.operations, tuple(key), claimable_at=tx.now_us)
    return []


def withdraw(tx: Transaction, *args: Any) -> list[Row]:
    merchant, checkout_id, operation_id, token, step, number = args
    step_key = merchant, checkout_id, operation_id, step
    key = (*step_key, number)
    row = tx.tables.attempts.get(key)
    held = tx.tables.operations[merchant, checkout_id, operation_id]["fencing_token"] == token
    if row is not None and held and row["fencing_token"] == token and row["outcome"] is None:
        tx.delete(tx.tables.attempts, key)
        _unlisted(tx, tx.tables.calls_of[step_key], key)
    return []


def unsent_request(tx: Transaction, *step_key: Any) -> list[Row]:
    if step_key in tx.tables.requests and not tx.tables.calls_of.get(step_key):
        tx.delete(tx.tables.requests, step_key)
        _unlisted(tx, tx.tables.steps_of[step_key[:3]], step_key)
    return []


def _unlisted(tx: Transaction, listing: list[Any], key: Any) -> None:
    place = listing.index(key)
    listing.remove(key)
    tx.undoing(lambda: listing.insert(place, key))
