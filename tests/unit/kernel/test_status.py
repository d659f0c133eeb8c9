from __future__ import annotations

from tollgate import status
from tollgate.v1.payment_pb2 import Status


def test_every_status_has_a_name_and_a_row() -> None:
    named = set(Status.values()) - {Status.STATUS_UNSPECIFIED}
    assert set(status.TRANSITIONS) == named == set(status.NAME)
    assert {status.BY_NAME[name] for name in status.NAME.values()} == named


def test_nothing_leaves_a_terminal_status() -> None:
    assert {status.NAME[s] for s in status.TERMINAL} == {"failed", "canceled", "refunded"}


def test_every_open_status_can_reach_its_end() -> None:
    for start in status.OPEN | {status.AUTHORIZED}:
        reached, frontier = {start}, {start}
        while frontier:
            frontier = {after for before in frontier for after in status.TRANSITIONS[before]} - reached
            reached |= frontier
        assert status.FAILED in reached
        assert status.SUCCEEDED in reached


def test_the_table_is_the_contracts() -> None:
    def following(name: str) -> set[str]:
        return {status.NAME[after] for after in status.TRANSITIONS[status.BY_NAME[name]]}

    assert following("pending") == {"processing", "canceled", "failed"}
    assert following("processing") == {"requires_action", "authorized", "succeeded", "failed", "canceled"}
    assert following("requires_action") == {"processing", "authorized", "succeeded", "failed", "canceled"}
    assert following("authorized") == {"succeeded", "canceled", "failed"}
    assert following("succeeded") == {"partially_refunded", "refunded"}
    assert following("partially_refunded") == {"partially_refunded", "refunded"}
