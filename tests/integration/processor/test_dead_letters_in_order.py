"""What is behind a dead letter stays behind it, through redrives, repeats and interruptions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from processor.changes import ChangeRecord
from processor.dead_letters import Origin
from processor.kafka.dead_letters import Letter
from processor.kafka.producer import Outgoing
from processor.redrive import Dead, State, plan_redrive, redrive, standing_letters
from processor.storage.dead_letters import Standing, only_redrive, standings
from tests.fixtures.changes import accepted_payment, change_record
from tests.integration.processor.conftest import Bench, FakePublisher
from tollgate import topics
from tollgate.errors import OperationalError, RejectedInput


def broken(offset: int, checkout_id: str = "checkout-0001") -> ChangeRecord:
    payment = accepted_payment(checkout_id)
    payment.description = "a NUL \0 in a text"  # only Postgres refuses it
    return change_record(payment, offset=offset)


def good(offset: int, checkout_id: str = "checkout-0001") -> ChangeRecord:
    return change_record(accepted_payment(checkout_id), offset=offset)


async def payments(bench: Bench) -> int:
    return int(await bench.pool.fetchval("SELECT count(*) FROM payments"))


def set_aside(bench: Bench) -> list[Letter]:
    """payments.dlq as it would be read."""
    letters = []
    for offset, record in enumerate(bench.publisher.of(topics.DLQ)):
        said = {name: value.decode() for name, value in record.headers}
        origin = Origin(said["origin_topic"], int(said["origin_partition"]), int(said["origin_offset"]))
        letters.append(
            Letter(
                offset,
                origin,
                record.key,
                record.value,
                tuple(record.headers),
                said["error"],
                int(said["attempts"]),
                1,
            )
        )
    return letters


async def dead(bench: Bench) -> list[Dead]:
    letters = set_aside(bench)
    values = {letter.offset: letter.value for letter in letters}
    found = standing_letters(letters, await standings(bench.pool))
    return [replace(one, letter=replace(one.letter, value=values[one.letter.offset])) for one in found]


async def states(bench: Bench) -> list[tuple[int, State]]:
    return [(one.letter.origin.offset, one.state) for one in await dead(bench)]


async def redriven(bench: Bench, dsn: str, publisher: FakePublisher) -> list[Outgoing]:
    """What a redrive of all sends."""
    plan = plan_redrive(await dead(bench), [], None)
    async with only_redrive(dsn) as connection:
        await redrive(connection, publisher, plan.chosen, "someone@somewhere", "")
    return publisher.of(topics.CHANGES)


def arriving(sent: Sequence[Outgoing], first_offset: int) -> list[ChangeRecord]:
    return [
        ChangeRecord(one.topic, one.partition or 0, first_offset + n, one.key, one.value, one.headers, 1)
        for n, one in enumerate(sent)
    ]


@pytest.mark.parametrize("together", [True, False])
async def test_a_later_change_of_a_dead_letter_s_key_is_set_aside_behind_it(
    bench: Bench, together: bool
) -> None:
    records = [broken(5), good(6), good(7, "checkout-0002")]
    if together:
        await bench.take_in(*records)
    else:
        for record in records:
            await bench.take_in(record)
    assert [letter.origin.offset for letter in set_aside(bench)] == [5, 6]
    assert "earlier change of its key" in set_aside(bench)[1].error
    assert await bench.pool.fetchval("SELECT checkout_id FROM payments") == "checkout-0002"
    assert await states(bench) == [(5, State.WAITING), (6, State.WAITING)]


async def test_what_cannot_be_read_keeps_what_follows_behind_it_too(bench: Bench) -> None:
    unreadable = replace(good(5), value=b"\xff")
    await bench.take_in(unreadable, good(6))
    assert await payments(bench) == 0
    assert len(set_aside(bench)) == 2


async def test_a_redelivered_batch_is_set_aside_in_the_same_way(bench: Bench) -> None:
    batch = [good(4), replace(good(5), value=b"\xff"), good(6)]
    await bench.take_in(*batch)
    first = await states(bench)
    await bench.take_in(*batch)
    assert await states(bench) == first == [(5, State.WAITING), (6, State.WAITING)]
    assert await payments(bench) == 1


async def test_a_redrive_brings_a_key_back_in_its_order_and_what_came_meanwhile_waits_for_the_next(
    bench: Bench, migrated_dsn: str
) -> None:
    await bench.take_in(replace(good(5), value=b"\xff"), good(6))
    bench.publisher.produced[0] = bench.publisher.produced[0]._replace(value=good(5).value)  # mended code
    sent = await redriven(bench, migrated_dsn, FakePublisher())
    assert await states(bench) == [(5, State.REDRIVEN), (6, State.REDRIVEN)]
    await bench.take_in(good(7))  # overtakes the redriven ones, and may not
    assert await payments(bench) == 0
    await bench.take_in(*arriving(sent, 8))
    assert await payments(bench) == 1
    assert await states(bench) == [(5, State.TAKEN_IN), (6, State.TAKEN_IN), (7, State.WAITING)]
    sent = await redriven(bench, migrated_dsn, FakePublisher())
    assert len(sent) == 1
    await bench.take_in(*arriving(sent, 10), good(11))
    assert [state for _, state in await states(bench)] == [State.TAKEN_IN] * 3


async def test_what_fails_again_keeps_its_place_and_its_count_before_those_behind_it(
    bench: Bench, migrated_dsn: str
) -> None:
    await bench.take_in(broken(5), good(6))
    for replays in (1, 2):
        sent = await redriven(bench, migrated_dsn, FakePublisher())
        assert [dict(one.headers)["redriven_from"] for one in sent] == [
            b"payments.changes/0/5",
            b"payments.changes/0/6",
        ]
        assert all(dict(one.headers)["replay_count"] == str(replays).encode() for one in sent)
        await bench.take_in(*arriving(sent, 10 * replays))
        assert await payments(bench) == 0
        assert await states(bench) == [(5, State.WAITING), (6, State.WAITING)]
    assert not plan_redrive(await dead(bench), [], None, replays_max=2).chosen


class CutOff(Exception):
    """The command is gone: nothing after this point runs."""


async def test_an_interrupted_redrive_is_known_by_what_it_leaves_and_the_next_one_names_it(
    bench: Bench, migrated_dsn: str
) -> None:
    await bench.take_in(broken(5, "checkout-0005"), broken(6, "checkout-0006"))

    class Cutting(FakePublisher):
        async def publish(self, outgoing: Sequence[Outgoing]) -> list[bool]:
            await super().publish(outgoing)
            raise CutOff

    with pytest.raises(CutOff):
        await redriven(bench, migrated_dsn, Cutting())
    plan = plan_redrive(await dead(bench), [], None)
    assert [one.letter.origin.offset for one in plan.in_doubt] == [5, 6]
    assert {one.redrive for one in plan.in_doubt} == {1}
    row = await bench.pool.fetchrow("SELECT * FROM dlq_redrives")
    assert row is not None
    assert (row["selected"], row["delivered"], row["finished_at"]) == (2, 0, None)


async def test_what_one_redrive_delivered_the_next_does_not_send(bench: Bench, migrated_dsn: str) -> None:
    await bench.take_in(broken(5))
    assert len(await redriven(bench, migrated_dsn, FakePublisher())) == 1
    assert await redriven(bench, migrated_dsn, FakePublisher()) == []
    assert await bench.pool.fetchval("SELECT delivered FROM dlq_redrives WHERE finished_at IS NOT NULL") == 1


async def test_a_kafka_that_does_not_confirm_stops_it_with_a_count(bench: Bench, migrated_dsn: str) -> None:
    await bench.take_in(broken(5))
    with pytest.raises(OperationalError, match="0 of 1"):
        await redriven(bench, migrated_dsn, FakePublisher(failing={topics.CHANGES}))
    assert await states(bench) == [(5, State.IN_DOUBT)]


async def test_two_redrives_at_a_time_are_one_too_many(migrated_dsn: str) -> None:
    async with only_redrive(migrated_dsn):
        with pytest.raises(RejectedInput, match="Another redrive"):
            async with only_redrive(migrated_dsn):
                pass
    async with only_redrive(migrated_dsn):
        pass


async def test_a_letter_that_postgres_has_never_heard_of_is_redriven_all_the_same(
    bench: Bench, migrated_dsn: str
) -> None:
    await bench.take_in(broken(5))
    await bench.pool.execute("DELETE FROM dead_letters")
    assert len(await redriven(bench, migrated_dsn, FakePublisher())) == 1
    (standing,) = (await standings(bench.pool)).values()
    assert isinstance(standing, Standing)
    assert standing.replays == 1
