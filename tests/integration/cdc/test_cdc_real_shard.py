"""cdc beside the shard that it was made for: a gateway process, killed and brought back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError, URLError

import grpc
import pytest

from tests.fixtures.free_port import free_port
from tests.fixtures.waiting import wait_until
from tests.integration.cdc.bench import CdcProcess, assert_complete, running, shipped
from tests.integration.cdc.test_cdc_status import publish
from tollgate.v1.change_pb2 import Change
from tollgate.v1.payment_pb2 import Status
from tollgate.v1.shard_pb2 import ReadChangesRequest, ReadChangesResponse, StatusUpdate
from tollgate.v1.shard_pb2_grpc import ShardStub

_KEY = "tg_sk_for_this_test_only"
_ROOT = Path(__file__).parents[3]
_SHARD = 21


class Gateway:
    def __init__(self, folder: Path) -> None:
        self.shard = _SHARD
        self.data_dir = folder / "shard"
        self.data_dir.mkdir()
        self.http = f"127.0.0.1:{free_port()}"
        self.grpc = f"127.0.0.1:{free_port()}"
        self._log = folder / "gateway.log"
        ring = {"version": 1, "next_id": _SHARD + 1}
        ring_file = folder / "ring.json"
        shards = [{"id": _SHARD, "name": self.http, "grpc": self.grpc}]
        ring_file.write_text(json.dumps({**ring, "shards": shards}))
        self._environment = {
            **os.environ,
            "TOLLGATE_RING_FILE": str(ring_file),
            "TOLLGATE_SHARD__ID": str(_SHARD),
            "TOLLGATE_SHARD__DATA_DIR": str(self.data_dir),
            "TOLLGATE_SHARD__HTTP": self.http,
            "TOLLGATE_SHARD__GRPC": self.grpc,
            "TOLLGATE_LEDGER__TARGETS": "",
            "TOLLGATE_CLIENT_SECRET_KEY": "a key of more than thirty-two characters",
            "TOLLGATE_DEVELOPMENT__API_KEY": _KEY,
            "TOLLGATE_DEVELOPMENT__MERCHANT": "acme",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway"], cwd=_ROOT, env=self._environment, stdout=log, stderr=log
            )
        wait_until(self._ready, f"the shard ready; read {self._log}")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.http}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def _request(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        request = urllib.request.Request(
            f"http://{self.http}{path}",
            data=body,
            method=method,
            headers={"Authorization": f"Bearer {_KEY}", "Content-Type": "application/json", **headers},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  # http, on loopback
                return answer.status, answer.read()
        except HTTPError as error:
            with error:
                return error.code, error.read()

    def pay(self, checkout_id: str) -> None:
        body = json.dumps({"amount": 1234, "currency": "USD", "payment_method": "pm_ok"}).encode()
        status, answer = self._request("POST", "/v1/payments", body, {"X-PAYMENT-CHECKOUT-ID": checkout_id})
        assert status == 202, answer

    def status_of(self, checkout_id: str) -> str:
        _status, answer = self._request("GET", f"/v1/payments/{checkout_id}", None, {})
        return str(json.loads(answer)["status"])

    def log_state(self) -> ReadChangesResponse:
        with grpc.insecure_channel(self.grpc) as channel:
            return ShardStub(channel).ReadChanges(ReadChangesRequest(from_sequence=1, limit=0), timeout=10)


@contextmanager
def gateway(folder: Path) -> Iterator[Gateway]:
    shard = Gateway(folder)
    shard.start()
    try:
        yield shard
    finally:
        shard.kill()


def is_shipped(shard: Gateway, count: int) -> bool:
    state = shard.log_state()
    return state.acknowledged_sequence == state.durable_sequence == count


@pytest.mark.fault
def test_every_202_of_a_killed_shard_reaches_kafka_and_its_status_comes_back(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    with gateway(tmp_path) as shard, running(CdcProcess(shard, kafka_bootstrap, tmp_path / "log")) as cdc:
        ids = [f"checkout-{number:04}" for number in range(60)]
        for index, checkout_id in enumerate(ids):
            shard.pay(checkout_id)
            if index in (20, 40):
                shard.kill()
                shard.start()
        wait_until(lambda: is_shipped(shard, len(ids)), "everything acknowledged")
        state = shard.log_state()
        assert state.epoch == 3
        records = shipped(kafka_bootstrap, state.incarnation)
        assert_complete(records, len(ids))
        changes = [Change.FromString(record.value) for record in records]
        assert {change.acceptance.checkout_id for change in changes} == set(ids)
        assert cdc.metric("tollgate_cdc_halted") == 0

        snapshot = changes[0].acceptance
        snapshot.version, snapshot.status = 1, Status.STATUS_SUCCEEDED
        publish(kafka_bootstrap, _SHARD, [StatusUpdate(payment=snapshot).SerializeToString()])
        wait_until(lambda: shard.status_of(snapshot.checkout_id) == "succeeded", "the status comes back")
