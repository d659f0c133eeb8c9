"""`tollgate cdc` on the whole stack: the logs agree with Kafka, and a replay charges nobody again."""

from __future__ import annotations

import json

import pytest

from tests.fixtures.stack import RunningStack, new_checkout_id
from tests.fixtures.waiting import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(200)]  # the first one starts the stack


def test_what_is_replayed_is_known_everywhere_and_charged_once(stack: RunningStack) -> None:
    ids = [new_checkout_id() for _ in range(12)]
    for checkout_id in ids:
        assert stack.pay(checkout_id).status == 202
    verified = stack.tollgate("cdc", "verify", "--wait", "30", "--json")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    before = {one["shard"]: one for one in json.loads(verified.stdout)["shards"]}
    assert set(before) == {0, 1}

    shown = stack.tollgate("cdc", "status", "--json")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert {one["state"] for one in json.loads(shown.stdout)} == {"caught up"}

    replayed = stack.tollgate("cdc", "replay")
    assert replayed.returncode == 0, replayed.stderr
    after = json.loads(stack.tollgate("cdc", "verify", "--wait", "30", "--json").stdout)
    assert after["ok"]
    for one in after["shards"]:
        assert one["repeats"] >= before[one["shard"]]["repeats"] + before[one["shard"]]["compared"]
    last = new_checkout_id()
    assert stack.pay(last).status == 202  # behind the replay in its partition
    for checkout_id in [*ids, last]:
        wait_until(lambda one=checkout_id: stack.status_of(one) == "succeeded", "succeeded")  # type: ignore[misc]
        assert len(stack.effects(checkout_id)) == 1
