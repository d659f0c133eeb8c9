"""Intake against a real Postgres: first wins, repeats are answered, conflicts are kept, nothing is
skipped.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace

import pytest

from processor.changes import ChangeRecord
from tests.fixtures.changes import NOW_US, accepted_payment, change_record
from tests.integration.processor.conftest import Bench
from tollgate import topics
from tollgate.errors import OperationalError
from tollgate.v1.change_pb2 import Change, Webhook
from tollgate.v1.payment_pb2 import Payment


async def count(bench: Bench, table: str) -> int:
    return int(await bench.pool.fetchval(f"SELECT count(*) FROM {table}"))  # noqa: S608


async def test_a_redelivered_batch_changes_nothing_and_the_shard_is_told_again(bench: Bench) -> None:
    batch = [change_record(accepted_payment(f"checkout-{n:04d}")) for n in range(5)]
    await bench.take_in(*batch)
    assert await count(bench, "status_resends") == 0
    await bench.take_in(*batch)
    for table, rows in {"payments": 5, "operations": 5, "outbox": 5, "payment_shards": 5}.items():
        assert await count(bench, table) == rows
    assert await count(bench, "payment_conflicts") == 0
    assert await count(bench, "status_resends") == 5


async def test_the_same_payment_from_two_shards_in_one_batch_is_one_payment_known_to_both(
    bench: Bench,
) -> None:
    payment = accepted_payment()
    await bench.take_in(change_record(payment, shard=0), change_record(payment, shard=1))
    assert await count(bench, "payments") == 1
    shards = await bench.pool.fetch("SELECT shard FROM payment_shards ORDER BY shard")
    assert [row["shard"] for row in shards] == [0, 1]
    assert await bench.pool.fetchval("SELECT shard FROM status_resends") == 1


async def test_another_content_loses_is_kept_once_and_its_shard_gets_the_winner(bench: Bench) -> None:
    winner, loser = accepted_payment(), accepted_payment(amount=999)
    losing = change_record(loser, shard=1)
    await bench.take_in(change_record(winner, shard=0), losing)
    await bench.take_in(losing)
    conflict = await bench.pool.fetchrow("SELECT * FROM payment_conflicts")
    assert conflict is not None
    assert await count(bench, "payment_conflicts") == 1
    assert Payment.FromString(conflict["acceptance"]).amount == 999
    assert (await bench.payment())["amount"] == 1234
    assert await bench.pool.fetchval("SELECT shard FROM status_resends") == 1
    await bench.run_due()
    assert len(bench.psp.effects) == 1


async def test_a_webhook_is_stored_raw_once(bench: Bench) -> None:
    change = Change(key="simulator/evt_1", sequence=1)
    change.webhook.CopyFrom(Webhook(psp="simulator", event_id="evt_1", body=b"{}", received_at_us=NOW_US))
    record = replace(change_record(accepted_payment()), key=b"simulator/evt_1")
    record = replace(record, value=change.SerializeToString())
    await bench.take_in(record)
    await bench.take_in(record)
    row = await bench.pool.fetchrow("SELECT * FROM webhook_inbox")
    assert row is not None
    assert (row["body"], row["applied_at"]) == (b"{}", None)
    assert await count(bench, "webhook_inbox") == 1


def unreadable(offset: int) -> ChangeRecord:
    return replace(change_record(accepted_payment(), offset=offset), value=b"\xff\xff")


async def test_an_unreadable_record_goes_to_the_dlq_as_it_was_and_the_rest_goes_on(bench: Bench) -> None:
    await bench.take_in(unreadable(17), change_record(accepted_payment("checkout-0002")))
    (dead,) = bench.publisher.of(topics.DLQ)
    headers = dict(dead.headers)
    assert dead.value == b"\xff\xff"
    assert (headers["origin_topic"], headers["origin_partition"], headers["origin_offset"]) == (
        b"payments.changes",
        b"0",
        b"17",
    )
    assert headers["attempts"] == b"1"
    assert headers["error"]
    assert (await bench.payment("checkout-0002"))["status"] == "pending"


async def test_a_content_that_only_postgres_refuses_is_set_aside_alone(bench: Bench) -> None:
    poisoned = accepted_payment("checkout-0001")
    poisoned.description = "a NUL \0 in a text"
    good = [change_record(accepted_payment(f"checkout-{n:04d}")) for n in range(2, 5)]
    await bench.take_in(good[0], change_record(poisoned), *good[1:])
    assert await count(bench, "payments") == 3
    assert len(bench.publisher.of(topics.DLQ)) == 1


async def test_an_event_id_that_no_index_can_hold_is_set_aside_and_not_tried_for_ever(
    bench: Bench,
) -> None:
    event_id = "".join(hashlib.sha256(bytes([n])).hexdigest() for n in range(120))
    change = Change(key=f"simulator/{event_id}", sequence=1)
    change.webhook.CopyFrom(Webhook(psp="simulator", event_id=event_id, body=b"{}", received_at_us=NOW_US))
    record = replace(change_record(accepted_payment()), key=change.key.encode())
    await bench.take_in(replace(record, value=change.SerializeToString()))
    (dead,) = bench.publisher.of(topics.DLQ)
    assert event_id.encode() not in dict(dead.headers)["error"]


async def test_while_the_dlq_can_t_be_written_the_batch_is_not_done(bench: Bench) -> None:
    bench.publisher.failing.add(topics.DLQ)
    with pytest.raises(OperationalError):
        await bench.take_in(unreadable(1))
    bench.publisher.failing.clear()
    await bench.take_in(unreadable(1))
    assert len(bench.publisher.of(topics.DLQ)) == 1


async def test_while_postgres_is_away_the_batch_is_not_done_and_nothing_is_dead_lettered(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise ConnectionRefusedError("no Postgres")

    record = change_record(accepted_payment())
    with monkeypatch.context() as patch:
        patch.setattr("processor.storage.intake._store", away)
        with pytest.raises(OperationalError):
            await bench.take_in(record)
    assert not bench.publisher.produced
    await bench.take_in(record)
    assert await count(bench, "payments") == 1


async def test_the_same_payments_taken_in_by_two_processors_at_once_are_stored_once(bench: Bench) -> None:
    payments = [accepted_payment(f"checkout-{n:04d}") for n in range(1000)]
    forward = [change_record(payment, shard=0) for payment in payments]
    backward = [change_record(payment, shard=1) for payment in reversed(payments)]
    await asyncio.gather(bench.take_in(*forward), bench.take_in(*backward))
    assert await count(bench, "payments") == 1000
    assert await count(bench, "payment_shards") == 2000
    assert await count(bench, "payment_conflicts") == 0
