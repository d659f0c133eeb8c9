"""POST /v1/webhooks/{psp} on the handlers themselves: who is heard, and when the PSP hears 200."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from gateway.bootstrap import webhook_endpoints
from gateway.http.message import Response
from gateway.settings import CommitSettings, PspSettings, WebhookSettings
from tests.fixtures.shard import (
    HeldDisk,
    InProcessShard,
    assert_problem,
    header,
    in_process_shard,
    shard_settings,
)
from tollgate.errors import ConfigurationError
from tollgate.shard_layout import CHANGES
from tollgate.v1.change_pb2 import Change
from tollgate.webhooks import VERIFIERS
from tollgate.webhooks.interface import Verified
from tollgate.webhooks.simulator import signed_headers

SECRET = "whsec_" + base64.b64encode(b"a secret of the simulator").decode()
BODY = b'{"id": "evt_1", "type": "charge"}'


def taking(**webhooks: Any) -> PspSettings:
    section = {"webhook_secret": SecretStr(SECRET)} | webhooks
    return PspSettings(simulator=WebhookSettings(**section))


async def send(
    shard: InProcessShard,
    *extra: tuple[str, str],
    psp: str = "simulator",
    secret: str = SECRET,
    event_id: str = "evt_1",
    body: bytes | None = BODY,
) -> Response:
    signed = signed_headers(secret, event_id, body or b"", shard.clock.now_us() / 1e6)
    return await shard.send("POST", f"/v1/webhooks/{psp}", *signed.items(), *extra, body=body)


def changes(shard: InProcessShard) -> list[Change]:
    return [Change.FromString(raw) for _, raw in shard.store.scan(CHANGES, b"", 100)]


async def test_a_verified_event_is_a_change_in_the_log_before_its_200(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path, psp=taking())
    answer = await send(shard)
    assert (answer.status, answer.body) == (200, b'{"received":true}')
    assert header(answer, "content-type") == "application/json"
    (change,) = changes(shard)
    assert (change.key, change.sequence, change.shard) == ("simulator/evt_1", 1, 3)
    assert change.WhichOneof("body") == "webhook"
    webhook = change.webhook
    assert (webhook.psp, webhook.event_id, webhook.body) == ("simulator", "evt_1", BODY)
    assert webhook.received_at_us == change.committed_at_us == shard.clock.now_us()
    assert shard.committer.durable.last == 1


async def test_nobody_hears_200_before_the_fsync(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path, psp=taking(), flusher=HeldDisk)
    answering = asyncio.create_task(send(shard))
    disk = shard.committer._flusher
    assert isinstance(disk, HeldDisk)
    while not disk.pending:
        await asyncio.sleep(0)
    assert not answering.done()
    disk.complete()
    assert (await answering).status == 200


async def test_a_disk_that_fails_is_never_a_200(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path, psp=taking(), flusher=HeldDisk)
    answering = asyncio.create_task(send(shard))
    disk = shard.committer._flusher
    assert isinstance(disk, HeldDisk)
    while not disk.pending:
        await asyncio.sleep(0)
    disk.break_down()
    assert_problem(await answering, 503, "not_ready")
    assert_problem(await send(shard), 503, "not_ready")


async def test_a_repeat_is_200_as_the_first_was(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path, psp=taking())
    assert [(await send(shard)).status for _ in range(3)] == [200] * 3
    assert {change.key for change in changes(shard)} == {"simulator/evt_1"}


async def test_whoever_can_not_sign_stores_nothing(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path, psp=taking())
    other = "whsec_" + base64.b64encode(b"somebody else's").decode()
    answer = await send(shard, secret=other)
    assert_problem(answer, 401, "unauthorized")
    assert header(answer, "www-authenticate") == "Signature"
    assert_problem(await shard.send("POST", "/v1/webhooks/simulator", body=BODY), 401, "unauthorized")
    signed = signed_headers(SECRET, "evt_1", BODY, shard.clock.now_us() / 1e6)
    shard.clock.advance(301)
    late = await shard.send("POST", "/v1/webhooks/simulator", *signed.items(), body=BODY)
    assert_problem(late, 401, "unauthorized")
    assert_problem(await send(shard, event_id="evt 1"), 400, "invalid_request")
    assert_problem(await send(shard, body=None), 413, "payload_too_large")
    assert changes(shard) == []


async def test_a_psp_without_a_secret_is_not_there(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path, psp=taking())
    for psp in ("nobody", "stripe", "simulator/x", ""):
        assert_problem(await send(shard, psp=psp), 404, "not_found")
    (other := tmp_path / "other").mkdir()
    assert_problem(await send(in_process_shard(other)), 404, "not_found")
    answer = await shard.send("GET", "/v1/webhooks/simulator")
    assert_problem(answer, 405, "method_not_allowed")
    assert header(answer, "allow") == "POST"


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("192.0.2.7", 200),
        ("2001:db8::1", 200),
        ("::ffff:192.0.2.7", 200),
        ("192.0.3.7", 403),
        ("2001:db9::1", 403),
        ("192.0.2.7, 10.0.0.1", 403),
        ("unix:", 403),
        (None, 403),
    ],
)
async def test_only_the_psps_own_addresses_are_heard(
    tmp_path: Path, address: str | None, status: int
) -> None:
    shard = in_process_shard(tmp_path, psp=taking(webhook_sources=["192.0.2.0/24", "2001:db8::/32"]))
    answer = await send(shard, *([("X-Real-IP", address)] if address else []))
    assert answer.status == status
    assert len(changes(shard)) == (status == 200)
    if status == 403:
        assert_problem(answer, 403, "forbidden")


async def test_no_room_is_said_and_the_psp_comes_again(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path, psp=taking())
    shard.health.refusal = "The disk is nearly full."
    assert_problem(await send(shard), 503, "overloaded")
    shard.health.refusal = None
    assert (await send(shard)).status == 200


async def test_a_webhook_waits_for_kafka_in_no_mode(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path, psp=taking(), commit=CommitSettings(ack="replicated"))
    assert (await send(shard)).status == 200


def test_secrets_come_from_the_environment_or_a_file_or_both(tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    second = "whsec_" + base64.b64encode(b"the next one").decode()
    file.write_text(f"{second}\n")
    settings = shard_settings(tmp_path, psp=taking(webhook_secret_file=file))
    endpoint = webhook_endpoints(settings)["simulator"]
    for secret in (SECRET, second):
        headers = signed_headers(secret, "evt_1", BODY, 1e9)
        assert isinstance(endpoint.verifier.verify(headers, BODY, 1e9), Verified)
    file.write_text(" \n")
    only = shard_settings(tmp_path, psp=taking(webhook_secret=None, webhook_secret_file=file))
    with pytest.raises(ConfigurationError, match="simulator is empty"):
        webhook_endpoints(only)
    file.unlink()
    with pytest.raises(ConfigurationError, match="can't be read"):
        webhook_endpoints(only)


def test_a_setting_that_would_do_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="without webhook_secret"):
        WebhookSettings(webhook_sources=["192.0.2.0/24"])
    with pytest.raises(ValidationError):
        taking(webhook_sources=["192.0.2.1/24"])


def test_every_verifier_has_its_settings() -> None:
    fields = PspSettings.model_fields
    assert {name for name in fields if fields[name].annotation is WebhookSettings} == set(VERIFIERS)


def test_no_secret_is_shown() -> None:
    assert SECRET not in repr(taking())
