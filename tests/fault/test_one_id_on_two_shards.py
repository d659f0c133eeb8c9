"""An owner that can't be asked, and the next shard takes its ids: executed once, and both tell the same."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection
from itertools import islice
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.fixtures.stack import Answer, RunningStack, new_checkout_id
from tests.fixtures.waiting import wait_until
from tollgate.ring_file import read_ring_file

pytestmark = [pytest.mark.stack, pytest.mark.fault, pytest.mark.timeout(180)]

OWNER, NEXT = 0, 1


def ask(stack: RunningStack, shard: int, checkout_id: str, amount: int | None = None) -> Answer:
    """A shard itself: POST with an amount, GET without."""
    address = next(urlsplit(known.http).netloc for known in stack.json.shards if known.id == shard)
    connection = HTTPConnection(address, timeout=15)
    headers = {"Authorization": f"Bearer {stack.json.api_key}"}
    try:
        if amount is None:
            connection.request("GET", f"/v1/payments/{checkout_id}", headers=headers)
        else:
            headers |= {"Content-Type": "application/json", "X-PAYMENT-CHECKOUT-ID": checkout_id}
            body = {"amount": amount, "currency": "EUR", "payment_method": "pm_ok"}
            connection.request("POST", "/v1/payments", json.dumps(body), headers)
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def has_succeeded(stack: RunningStack, shard: int, checkout_id: str) -> bool:
    answer = ask(stack, shard, checkout_id)
    return answer.status == 200 and answer.json["status"] == "succeeded"


def conflicts(stack: RunningStack, checkout_ids: list[str]) -> list[tuple[str, int]]:
    with psycopg.connect(stack.json.postgres_dsn) as connection:
        rows = connection.execute(
            "SELECT checkout_id, shard FROM payment_conflicts WHERE checkout_id = ANY(%s)", (checkout_ids,)
        )
        return [(row[0], row[1]) for row in rows]


def test_what_two_shards_accepted_is_executed_once_and_the_first_in_postgres_stands(
    stack: RunningStack,
) -> None:
    ring = read_ring_file(stack.paths.ring)
    owned = (i for i in iter(new_checkout_id, "") if ring.owner(i).id == OWNER)
    same, other, unknown = islice(owned, 3)
    with frozen(stack.pids[f"cdc-{OWNER}"]):
        for checkout_id in (same, other):
            assert ask(stack, OWNER, checkout_id, 1000).status == 202
        with frozen(stack.pids[f"shard-{OWNER}"]):
            for checkout_id in (same, unknown):
                silent = ask(stack, NEXT, checkout_id)
                assert (silent.status, silent.json["code"]) == (503, "owner_unavailable")
            assert ask(stack, NEXT, same, 1000).status == 202
            assert ask(stack, NEXT, other, 2000).status == 202
            for checkout_id in (same, other):
                wait_until(partial(has_succeeded, stack, NEXT, checkout_id), f"{checkout_id} is executed")
        assert ask(stack, OWNER, other).json["amount"] == 1000, "the owner has not heard of it yet"
    for checkout_id in (same, other):
        wait_until(partial(has_succeeded, stack, OWNER, checkout_id), f"its owner knows {checkout_id}")
    for shard in (OWNER, NEXT):
        assert ask(stack, shard, same, 1000).status == 200
        assert ask(stack, shard, other).json["amount"] == 2000, "the loser's record is overwritten"
        assert ask(stack, shard, other, 2000).status == 200
        assert ask(stack, shard, other, 1000).status == 422
    wait_until(lambda: bool(conflicts(stack, [same, other])), "the conflict is kept")
    assert conflicts(stack, [same, other]) == [(other, OWNER)]
    assert [effect["amount"] for effect in stack.effects(same)] == [1000]
    assert [effect["amount"] for effect in stack.effects(other)] == [2000]
    assert ask(stack, NEXT, unknown).status == 404
