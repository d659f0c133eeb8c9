"""`python -m processor.risk` as a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.fixtures.free_port import free_port
from tollgate.local.part import Part
from tollgate.local.probes import http_probe


def risk_part(folder: Path, dsn: str, address: str, rules: str) -> Part:
    """`rules` are those of its file."""
    file, ops = folder / "rules.toml", f"127.0.0.1:{free_port()}"
    file.write_text(rules)
    return Part(
        name="risk",
        argv=(sys.executable, "-m", "processor.risk"),
        cwd=folder,
        log=folder / "risk.log",
        is_ready=http_probe(ops),
        env={
            "TOLLGATE_POSTGRES_DSN": dsn,
            "TOLLGATE_RISK__LISTEN": address,
            "TOLLGATE_RISK__OPS": ops,
            "TOLLGATE_RISK__RULES_FILE": str(file),
        },
    )
