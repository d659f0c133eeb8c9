"""Hostile clients of the whole stack: races on one id, cards everywhere, every kind of bad PSP answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.fixtures.stack import Answer, RunningStack, new_checkout_id, stack_folder
from tests.fixtures.waiting import wait_until
from tollgate.local.paths import StackPaths

pytestmark = [pytest.mark.stack, pytest.mark.timeout(200)]  # the first one starts the stack

CARD = "4242424242424242"
OPEN = ("pending", "processing")
AT_ONCE = 50


@pytest.mark.parametrize("contents", [1, 5, AT_ONCE])
def test_of_many_at_once_one_is_accepted_its_like_replayed_and_the_rest_refused(
    stack: RunningStack, contents: int
) -> None:
    checkout_id = new_checkout_id()
    with ThreadPoolExecutor(AT_ONCE) as clients:
        amounts = [1000 + n % contents for n in range(AT_ONCE)]
        answers = list(clients.map(lambda amount: stack.pay(checkout_id, amount=amount), amounts))
    alike = AT_ONCE // contents
    counted = Counter(answer.status for answer in answers)
    assert counted == Counter({202: 1, 200: alike - 1, 422: AT_ONCE - alike})
    [accepted] = [answer.json["amount"] for answer in answers if answer.status == 202]
    assert {answer.json["amount"] for answer in answers if answer.status == 200} <= {accepted}
    wait_until(lambda: stack.status_of(checkout_id) == "succeeded", "succeeded")
    [effect] = stack.effects(checkout_id)
    assert effect["amount"] == accepted


def test_whatever_the_psp_does_a_payment_ends_with_its_one_effect(stack: RunningStack) -> None:
    tokens = ("pm_ok", "pm_declined", "pm_slow_3000", "pm_unavailable_3", "pm_lost", "pm_reset", "pm_😀")
    payments = {
        new_checkout_id(): {"payment_method": token, "capture": capture, "currency": currency}
        for token in tokens
        for capture, currency in (("automatic", "KWD"), ("manual", "JPY"))
    }
    for checkout_id, fields in payments.items():
        assert stack.pay(checkout_id, **fields).status == 202
    seen: dict[str, Answer] = {}

    def all_ended() -> bool:
        for checkout_id in payments.keys() - seen.keys():
            answer = stack.request("GET", f"/v1/payments/{checkout_id}")
            is_open = answer.json["status"] in OPEN
            assert answer.headers.get("retry-after") == ("2" if is_open else None)
            if not is_open:
                seen[checkout_id] = answer
        return len(seen) == len(payments)

    wait_until(all_ended, "every payment ended", timeout_s=40)
    for checkout_id, fields in payments.items():
        told = seen[checkout_id].json
        automatic = fields["capture"] == "automatic"
        effects = [(effect["type"], effect["amount"]) for effect in stack.effects(checkout_id)]
        if fields["payment_method"] == "pm_declined":
            assert (told["status"], told["failure"]["code"], effects) == ("failed", "insufficient_funds", [])
        elif automatic:
            assert (told["status"], told["captured_amount"], effects) == (
                "succeeded",
                1234,
                [("charge", 1234)],
            )
        else:
            assert (told["status"], told["captured_amount"]) == ("authorized", 0)
            assert effects == [("authorization", 1234)]
        replay = stack.pay(checkout_id, **fields)
        assert (replay.status, replay.json) == (200, told)


def test_lengths_are_counted_in_characters(stack: RunningStack) -> None:
    longest = {"customer_id": "é" * 64, "description": "😀" * 500, "return_url": "é" * 2048}
    metadata = {f"{'é' * 38}{n}": "é" * 500 for n in range(10, 30)}
    body = {"amount": 1, "currency": "EUR", "payment_method": "é" * 255, "metadata": metadata, **longest}
    checkout_id = new_checkout_id()
    raw = json.dumps(body, ensure_ascii=False).encode()
    taken = stack.request("POST", "/v1/payments", raw, {"X-PAYMENT-CHECKOUT-ID": checkout_id})
    assert taken.status == 202, taken
    wait_until(lambda: stack.status_of(checkout_id) == "succeeded", "succeeded")
    told = stack.request("GET", f"/v1/payments/{checkout_id}").json
    assert told["metadata"] == metadata
    assert (told["customer_id"], told["description"]) == (longest["customer_id"], longest["description"])


def test_no_card_and_no_client_secret_is_in_any_file_or_command_line(stack: RunningStack) -> None:
    grouped = (CARD, "4242 4242 4242 4242", "4242-4242-4242-4242")
    for card in grouped:
        for fields in (
            {"description": card},
            {"metadata": {"note": card}},
            {card: 1},
            {"metadata": {card: ""}},
        ):
            answer = stack.pay(new_checkout_id(), **fields)
            assert answer.status == 400
            assert card.encode() not in answer.body
    assert stack.pay(CARD).status == 400
    checkout_id = new_checkout_id()
    secret = stack.pay(checkout_id).json["client_secret"]
    assert stack.request("GET", f"/v1/payments/{checkout_id}?client_secret={secret}").status == 200
    assert stack.request("TRACE", f"/v1/payments/{CARD}?client_secret={secret}").status == 405
    wait_until(lambda: stack.status_of(checkout_id) == "succeeded", "succeeded")
    sought = [text.encode() for text in (*grouped, secret.partition("-")[2])]
    sparse = (".index", ".timeindex")  # Kafka's: many MB of holes and a few numbers
    files = (path for path in stack.paths.data_dir.rglob("*") if path.is_file() and path.suffix not in sparse)
    assert [path for path in files if any(text in path.read_bytes() for text in sought)] == []
    command_lines = " ".join(word for pid in stack.processes() for word in psutil.Process(pid).cmdline())
    assert stack.json.api_key not in command_lines


@pytest.fixture
def strange_folder() -> Iterator[Path]:
    with stack_folder() as folder:
        yield folder


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a command as another user")
@pytest.mark.parametrize("command", ["status", "down", "pay", "up"])
def test_another_users_stack_is_refused_in_one_sentence(strange_folder: Path, command: str) -> None:
    paths = StackPaths(strange_folder)
    for path in (paths.lock, paths.stack_json):
        path.touch(0o600)

    def in_one_sentence(code: int, told: str) -> None:
        assert (code, told.count("\n")) == (1, 1), told
        assert str(strange_folder) in told
        assert "--data-dir" in told

    asked = subprocess.run(
        (sys.executable, "-c", _AS_NOBODY, command, "--data-dir", str(strange_folder)),
        capture_output=True,
        text=True,
        timeout=30,
    )
    in_one_sentence(asked.returncode, asked.stderr)


# Drops its rights after the imports: what is installed may lie in a folder of root's.
_AS_NOBODY = """
import os, sys
from tollgate.cli import main
main.build_app(None)
os.setgroups([]); os.setgid(65534); os.setuid(65534)
main.main()
"""
