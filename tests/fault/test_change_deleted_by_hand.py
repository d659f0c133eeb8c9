"""A change is deleted from a real shard's log by hand: the tailer halts there, says so, and waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.gateway_process import gateway
from tests.fixtures.store_by_hand import store_by_hand
from tests.fixtures.waiting import wait_until
from tests.integration.cdc.bench import CdcProcess, assert_complete, running, shipped
from tollgate.shard_layout import CHANGES, encode_u64

pytestmark = pytest.mark.fault

_SHARD = 25
_DELETED = 12
_PAYMENTS = 34
# So much that there are marks behind the deleted change: a start looks at those, and at what follows them.
_LARGE = {"metadata": {f"key-{number:02}": "x" * 500 for number in range(20)}}


def test_the_tailer_halts_there_alarms_and_goes_on_by_itself_after_the_repair(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    with gateway(tmp_path, _SHARD) as shard:
        for number in range(_PAYMENTS):
            shard.pay(f"checkout-{number:04}", **_LARGE)
        shard.kill()
        with store_by_hand(shard.data_dir) as families:
            deleted = families[CHANGES].get(encode_u64(_DELETED))
            families[CHANGES].delete(encode_u64(_DELETED))
        shard.start()
        with running(CdcProcess(shard, kafka_bootstrap, tmp_path / "cdc.log")) as tailer:
            wait_until(lambda: "no readable change" in tailer.ready()[1], "halted")
            ready, reason = tailer.ready()
            assert not ready
            assert f"no readable change {_DELETED}" in reason
            assert "Operator action" in reason
            assert tailer.said("tailer_halted")
            wait_until(lambda: tailer.metric("tollgate_cdc_halted") == 1, "the metric says so")
            shard.pay("checkout-while-halted")
            wait_until(lambda: shard.log_state().acknowledged_sequence == _DELETED - 1, "what is before it")
            incarnation = shard.log_state().incarnation
            assert {r.sequence for r in shipped(kafka_bootstrap, incarnation)} == set(range(1, _DELETED))

            shard.kill()
            with store_by_hand(shard.data_dir) as families:
                families[CHANGES].put(encode_u64(_DELETED), deleted)
            shard.start()
            wait_until(lambda: shard.log_state().acknowledged_sequence == _PAYMENTS + 1, "all is shipped")
            wait_until(lambda: tailer.metric("tollgate_cdc_halted") == 0, "the alarm is over")
            assert tailer.ready() == (True, "")
        assert_complete(shipped(kafka_bootstrap, incarnation), _PAYMENTS + 1)
