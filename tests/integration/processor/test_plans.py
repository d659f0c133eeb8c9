"""Plans of an empty database stay right: a payment is looked up by its key, never by walking over many.

A processor prepares its statements when the tables are empty, and a session keeps its plans until somebody
analyzes the tables.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

import processor.storage
from processor.storage.database import Pool

# Those that do walk: lists, and what a person asks for now and then.
EXCEPT = {"processor.storage.lists", "processor.storage.parked"}


def statements() -> dict[str, str]:
    """Everything in processor.storage that reads a payment beside something else, by its name."""
    found: dict[str, str] = {}
    for module in pkgutil.iter_modules(processor.storage.__path__, "processor.storage."):
        if module.name in EXCEPT:
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            is_statement = isinstance(value, str) and value.lstrip().startswith(("SELECT", "WITH"))
            if is_statement and "payments AS p" in value and ("WHERE" in value or "unnest(" in value):
                found[f"{module.name}.{name}"] = value
    return found


STATEMENTS = statements()


def scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if plan.get("Relation Name") == "payments" and "Scan" in plan["Node Type"]:
        yield plan
    for part in plan.get("Plans", ()):
        yield from scans(part)


def test_there_are_such_statements() -> None:
    assert {"processor.storage.outbox._RESENDS", "processor.storage.locks._LOCK_VERSIONS"} <= set(STATEMENTS)


@pytest.mark.parametrize("name", sorted(STATEMENTS))
async def test_a_payment_is_looked_up_by_its_primary_key(pool: Pool, name: str) -> None:
    nulls = ", ".join(["NULL"] * len(set(re.findall(r"\$\d+", STATEMENTS[name]))))
    async with pool.acquire() as connection:
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        await connection.execute(f"PREPARE looked_up AS {STATEMENTS[name]}")
        explained = await connection.fetchval(
            f"EXPLAIN (FORMAT JSON) EXECUTE looked_up{f'({nulls})' if nulls else ''}"
        )
    found = list(scans(orjson.loads(explained)[0]["Plan"]))
    assert found
    for scan in found:
        assert scan["Index Name"] == "payments_pkey"
        assert "checkout_id" in scan.get("Index Cond", ""), "it walks over all payments"
