"""The command itself: exit codes and what it prints, against a fake gateway, PSP and Postgres reader."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from aiohttp import web
from typer.testing import CliRunner

from tollgate.cli import pay_many
from tollgate.cli.pay import pay
from tollgate.cli.verify_payments import Row
from tollgate.errors import OperationalError
from tollgate.local.stack_json import ShardProcess, StackJson, write_stack_json

APP = typer.Typer()
APP.command()(pay)


class FakeStack:
    """Gateway and simulator in one: every payment is charged and succeeds at once."""

    def __init__(self) -> None:
        self.bodies: dict[str, dict[str, Any]] = {}
        self.charges_each = 1
        self.port = 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/_ledger":
            return web.json_response({"effects": self._effects(), "calls": []})
        checkout_id = request.headers["X-PAYMENT-CHECKOUT-ID"]
        known = checkout_id in self.bodies
        self.bodies[checkout_id] = json.loads(await request.read())
        document = {"status": "succeeded", "version": 2, "created_at": "2026-11-21T10:00:00.000001Z"}
        return web.json_response(document, status=200 if known else 202)

    def _effects(self) -> list[dict[str, Any]]:
        return [
            {
                "type": "charge",
                "checkout_id": checkout_id,
                "merchant": "demo",
                "amount": body["amount"],
                "currency": body["currency"],
                "at": "2026-11-21T10:00:00.000002Z",
            }
            for checkout_id, body in self.bodies.items()
            for _ in range(self.charges_each)
        ]

    async def rows(self, _dsn: str, _merchant: str, checkout_ids: Sequence[str]) -> dict[str, Row]:
        return {
            checkout_id: Row(
                "succeeded", self.bodies[checkout_id]["amount"], self.bodies[checkout_id]["currency"]
            )
            for checkout_id in checkout_ids
        }


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeStack]:
    """Served from a thread of its own, because the command runs its own event loop."""
    fake = FakeStack()
    loop = asyncio.new_event_loop()

    async def start() -> web.ServerRunner:
        runner = web.ServerRunner(web.Server(fake.handle), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        fake.port = runner.addresses[0][1]
        return runner

    runner = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    url = f"http://127.0.0.1:{fake.port}"
    shard = ShardProcess(id=0, pid=1, http=url, grpc="127.0.0.1:1", data_dir="shard")
    document = StackJson(
        base_url=url,
        api_key="tg_sk_test",
        merchant="demo",
        kafka_bootstrap="127.0.0.1:1",
        postgres_dsn="postgresql://tollgate@127.0.0.1:1/tollgate",
        psp_simulator_url=url,
        shards=(shard,),
    )
    write_stack_json(tmp_path / "stack.json", document)
    monkeypatch.setenv("TOLLGATE_HOME", str(tmp_path))
    monkeypatch.setattr(pay_many, "read_rows", fake.rows)
    yield fake
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def run(*arguments: str) -> tuple[int, str]:
    """(exit code, everything printed)."""
    result = CliRunner().invoke(APP, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_many_that_are_all_right_exit_0_with_their_numbers(stack: FakeStack) -> None:
    code, output = run("--count", "20", "--concurrency", "4", "--json")
    report = json.loads(output)
    assert code == 0
    assert report["ok"]
    assert report["statuses"] == {"succeeded": 20}
    assert report["accepted_ms"]["p99"] > 0


def test_a_double_charge_exits_1_and_is_listed(stack: FakeStack) -> None:
    stack.charges_each = 2
    code, output = run("--count", "3")
    assert code == 1
    assert "3 findings" in output
    assert all(checkout_id in output for checkout_id in stack.bodies)


def test_the_same_seed_again_replays(stack: FakeStack) -> None:
    run("--count", "5", "--seed", "7")
    code, output = run("--count", "5", "--seed", "7", "--json")
    assert code == 0
    assert json.loads(output)["replayed"] == 5
    assert len(stack.bodies) == 5


def test_one_payment_is_shown_and_does_without_hops_when_postgres_is_away(stack: FakeStack) -> None:
    code, output = run("--amount", "1234", "--currency", "KWD")
    assert code == 0
    assert "1.234 KWD" in output
    assert "202 accepted, succeeded" in output
    assert "The hops inside are not known" in output
    assert [body["amount"] for body in stack.bodies.values()] == [1234]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--currency", "EUX"),
        ("--amount", "0"),
        ("--capture", "later"),
        ("--count", "5", "--payment-method", ""),
        ("--file", "none.jsonl"),
        ("--file", "none.jsonl", "--count", "5"),
        ("--file", "none.jsonl", "--amount", "5"),
        ("--count", "0"),
    ],
)
def test_wrong_input_exits_2_and_sends_nothing(stack: FakeStack, arguments: tuple[str, ...]) -> None:
    code, _ = run(*arguments)
    assert code == 2
    assert stack.bodies == {}


def test_a_stack_that_is_not_there_or_down_says_what_to_do(
    tmp_path: Path, stack: FakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OperationalError, match="Start the stack with `tollgate up`"):
        run("--data-dir", str(tmp_path / "elsewhere"))
    path = tmp_path / "stack.json"
    write_stack_json(path, StackJson.model_validate_json(path.read_bytes()).without_processes())
    with pytest.raises(OperationalError, match="is not running"):
        run()
