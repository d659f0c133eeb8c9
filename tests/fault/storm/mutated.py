"""Sources with a deliberate bug, for a stack to run on: a copy of the product's packages with one patch of
`tests/mutations` applied. The parts find it on the PYTHONPATH before the checkout; the product knows nothing
of it.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
PATCHES: Final = ROOT / "tests/mutations"
_PACKAGES: Final = ("tollgate", "gateway", "cdc", "processor", "nginx")


def mutated_tree(patch: Path, into: Path) -> Path:
    """`into`, made anew. Raises RuntimeError when the patch does not fit the sources any more."""
    for package in _PACKAGES:
        shutil.copytree(ROOT / package, into / package, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        ("git", "apply", "-p1", "--recount", str(patch)),
        cwd=into,
        env={"GIT_CEILING_DIRECTORIES": str(into.parent), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"{patch.name} does not fit the sources any more: {done.stderr.strip()}. Make it anew."
        )
    return into
