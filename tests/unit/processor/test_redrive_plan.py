"""Which dead letters go back to intake, and what is said of those that stay."""

from __future__ import annotations

import pytest

from processor.dead_letters import Origin
from processor.kafka.dead_letters import Letter
from processor.redrive import Dead, Plan, State, parse_filter, plan_redrive, standing_letters
from processor.storage.dead_letters import Standing
from tollgate.errors import RejectedInput
from tollgate.topics import CHANGES, STATUS


def letter(
    offset: int, key: str = "acme/checkout-1", *, topic: str = CHANGES, at: int = 0, attempts: int = 1
) -> Letter:
    return Letter(
        at, Origin(topic, 0, offset), key.encode(), b"v", (), "the currency is unknown", attempts, 1
    )


def dead(offset: int, state: State = State.WAITING, key: str = "acme/checkout-1", replays: int = 0) -> Dead:
    return Dead(letter(offset, key), state, replays)


def chosen(plan: Plan) -> list[int]:
    return [one.letter.origin.offset for one in plan.chosen]


def test_of_each_letter_the_last_copy_counts_and_they_go_in_the_order_of_their_origin() -> None:
    letters = [letter(9, at=0), letter(4, at=1), letter(9, at=2, attempts=2)]
    standing = standing_letters(letters, {})
    assert [(one.letter.origin.offset, one.letter.offset, one.replays) for one in standing] == [
        (4, 1, 0),
        (9, 2, 1),
    ]


@pytest.mark.parametrize(
    ("standing", "state"),
    [
        (Standing(1, 0, None, None, None), State.WAITING),
        (Standing(1, 1, 7, None, None), State.IN_DOUBT),
        (Standing(1, 1, 7, 5, None), State.REDRIVEN),
        (Standing(1, 1, 7, 5, 6), State.TAKEN_IN),
        (Standing(1, 1, 7, None, 6), State.TAKEN_IN),
    ],
)
def test_how_a_letter_stands_is_told_by_what_was_noted(standing: Standing, state: State) -> None:
    (found,) = standing_letters([letter(4)], {Origin(CHANGES, 0, 4): standing})
    assert found.state is state


def test_what_did_not_come_from_intake_does_not_go_there() -> None:
    plan = plan_redrive(standing_letters([letter(4, topic=STATUS)], {}), [], None)
    assert not plan.chosen
    assert plan.skipped == {"not from intake's topic": 1}


def test_what_was_delivered_stays_until_intake_has_had_it_unless_asked_for_again() -> None:
    letters = [dead(1, State.REDRIVEN, "a/1"), dead(2, State.TAKEN_IN, "a/2"), dead(3, State.IN_DOUBT, "a/3")]
    plan = plan_redrive(letters, [], None)
    assert chosen(plan) == [3]
    assert [one.letter.origin.offset for one in plan.in_doubt] == [3]
    assert chosen(plan_redrive(letters, [], None, again=True)) == [1, 3]


def test_a_letter_redriven_too_often_stays_and_those_behind_it_too() -> None:
    letters = [dead(1, replays=5), dead(2), dead(3, key="acme/checkout-2")]
    plan = plan_redrive(letters, [], None, replays_max=5)
    assert chosen(plan) == [3]
    assert sum(plan.skipped.values()) == 2
    assert chosen(plan_redrive(letters, [], None, replays_max=6)) == [1, 2, 3]


def test_a_filter_never_lets_a_letter_pass_an_earlier_one_of_its_key() -> None:
    letters = [dead(1), dead(2), dead(3, key="acme/checkout-2")]
    assert chosen(plan_redrive(letters, [parse_filter("origin=*/2")], None)) == []
    assert chosen(plan_redrive(letters, [parse_filter("key=*-2")], None)) == [3]
    assert chosen(plan_redrive(letters, [parse_filter("error=*currency*")], None)) == [1, 2, 3]


def test_a_limit_takes_the_oldest_and_says_how_many_are_left() -> None:
    plan = plan_redrive([dead(1), dead(2), dead(3)], [], 2)
    assert chosen(plan) == [1, 2]
    assert plan.skipped == {"beyond the limit": 1}


@pytest.mark.parametrize("text", ["", "key", "value=1", "=x"])
def test_a_filter_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RejectedInput, match="field=pattern"):
        parse_filter(text)
