"""`tollgate verify` as a command: what it prints, and what its exit code says."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
import typer
from typer.testing import CliRunner

from tollgate.cli import verify as command
from tollgate.cli.proof.judging import Tally
from tollgate.errors import OperationalError
from tollgate.local.stack_json import StackJson, write_stack_json

Run = Callable[..., tuple[int, str]]
CLEAN = Tally(payments=3)
LOST = Tally(payments=3)
LOST.find("I1 lost", "demo/order-00000001", "202 told, and Postgres does not know it")
UNREAD = OperationalError("Postgres could not be read. Look at `tollgate status`.")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs it over looks that come to what is said, then Ctrl-C."""
    addresses = dict.fromkeys(("base_url", "kafka_bootstrap", "postgres_dsn", "psp_simulator_url"), "nowhere")
    stack = StackJson(**addresses, api_key="tg_sk_of_a_test", merchant="demo")
    write_stack_json(tmp_path / "stack.json", stack)
    app = typer.Typer()
    app.command()(command.verify)

    def asked(*looks: Tally | OperationalError, arguments: tuple[str, ...] = ()) -> tuple[int, str]:
        left = iter(looks)

        def look(*_arguments: object) -> Tally:
            found = next(left, None)
            if found is None:
                raise KeyboardInterrupt
            if isinstance(found, OperationalError):
                raise found
            return found

        monkeypatch.setattr(command, "look_once", look)
        monkeypatch.setattr(time, "sleep", lambda _seconds: None)
        ended = CliRunner().invoke(app, ["--data-dir", str(tmp_path), *arguments])
        return ended.exit_code, ended.output

    return asked


def test_the_exit_code_says_whether_all_agree(run: Run) -> None:
    code, output = run(CLEAN)
    assert code == 0
    assert "All witnesses agree" in output
    code, output = run(LOST)
    assert code == 1
    assert "demo/order-00000001: 202 told" in output
    code, output = run(UNREAD)
    assert code == 2
    assert "Look at `tollgate status`" in output
    code, output = run(CLEAN, arguments=("--since", "yesterday"))
    assert code == 2
    assert "RFC 3339" in output


def test_json_names_every_rule_with_what_was_checked_and_the_first_findings(run: Run) -> None:
    code, output = run(LOST, arguments=("--json",))
    assert code == 1
    found = orjson.loads(output)
    assert not found["ok"]
    assert set(found["rules"]) == set(command.SAYS)
    assert found["rules"]["I1 lost"]["first"][0]["id"] == "demo/order-00000001"


def test_watching_goes_on_and_no_later_look_takes_a_finding_back(run: Run) -> None:
    watch = ("--watch",)
    assert run(CLEAN, CLEAN, arguments=watch)[0] == 0
    assert run(CLEAN, LOST, CLEAN, arguments=watch)[0] == 1
    assert run(UNREAD, CLEAN, arguments=watch)[0] == 0
    assert run(LOST, UNREAD, arguments=watch)[0] == 1
    assert run(CLEAN, UNREAD, arguments=watch)[0] == 2
