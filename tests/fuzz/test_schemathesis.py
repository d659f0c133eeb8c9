"""Requests drawn from the document, valid and not, to a live shard and through nginx: nothing undescribed.

A small seeded part runs by default; `make fuzz` draws more (TOLLGATE_FUZZ_EXAMPLES).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.openapi.examples import CHECKOUT_ID
from tests.fixtures.live_shards import LiveShards
from tests.fixtures.shard import API_KEY, MERCHANT
from tollgate.money import AMOUNT_MAX
from tollgate.status import SUCCEEDED
from tollgate.v1.payment_pb2 import Capture, Payment

FOLDER = Path(__file__).parent
SEED = os.environ.get("TOLLGATE_FUZZ_SEED", "20261121")
EXAMPLES = int(os.environ.get("TOLLGATE_FUZZ_EXAMPLES", "4"))
SMALL = EXAMPLES <= 8

# What the examples name: else none of them would find anything.
REFUNDABLE = Payment(
    merchant=MERCHANT,
    checkout_id=CHECKOUT_ID,
    status=SUCCEEDED,
    version=2,
    amount=AMOUNT_MAX,
    currency="EUR",
    capture=Capture.CAPTURE_AUTOMATIC,
    captured_amount=AMOUNT_MAX,
    created_at_us=1_795_255_200_000_000,
    updated_at_us=1_795_255_200_000_000,
)


@pytest.mark.timeout(120 if SMALL else 3600)
@pytest.mark.parametrize("front", ["shard", "nginx"])
def test_nothing_that_the_document_allows_or_forbids_is_answered_otherwise(
    live: LiveShards, front: str, tmp_path: Path
) -> None:
    address = live.through if front == "nginx" else live.shards[0]
    # nginx adds its own refusals to the shard's answers: by default it is enough to walk along every bound.
    phases = "examples,coverage" if SMALL and front == "nginx" else "examples,coverage,fuzzing,stateful"
    live.ledger.payments.setdefault((MERCHANT, CHECKOUT_ID), REFUNDABLE)
    ran = subprocess.run(
        (
            *(sys.executable, "-m", "schemathesis.cli", "--no-color"),
            *("--config-file", str(FOLDER / "schemathesis.toml"), "run", f"http://{address}/openapi.json"),
            *("--phases", phases, "--seed", SEED, "--max-examples", str(EXAMPLES)),
        ),
        cwd=tmp_path,
        env=os.environ
        | {"TOLLGATE_FUZZ_API_KEY": API_KEY, "SCHEMATHESIS_HOOKS": str(FOLDER / "schemathesis_hooks.py")},
        capture_output=True,
        text=True,
        timeout=100 if SMALL else 3500,
    )
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    assert "33 selected / 33 total" in ran.stdout
