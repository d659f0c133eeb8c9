"""Builds what the benchmarks need besides the project: the load generator and the peers, in `.bench/`.

Each is built again when one of its sources is newer; a build that fails leaves the one before it in place.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from tollgate.errors import ConfigurationError

_BENCHMARKS: Final = Path(__file__).resolve().parents[1]
ROOT: Final = _BENCHMARKS.parent
BUILT: Final = ROOT / ".bench"
_BUILD_TIMEOUT_S: Final = 600
_C_FLAGS: Final = ("-std=c17", "-O2", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror")


def loadgen() -> Path:
    """The generator's executable. Raises ConfigurationError where there is no C compiler."""
    sources = sorted((_BENCHMARKS / "loadgen").glob("*.[ch]"))
    target = BUILT / "loadgen"
    if _is_stale(target, sources):
        compiler = c_compiler()
        if compiler is None:
            raise ConfigurationError(
                "The load generator is compiled here, and there is no C compiler. Install gcc or clang, or "
                "name one: CC='python -m ziglang cc' after `pip install ziglang`."
            )
        c_files = [str(path) for path in sources if path.suffix == ".c"]
        _build([*compiler, *_C_FLAGS, *c_files, "-o"], target, _BENCHMARKS / "loadgen")
    return target


def c_compiler() -> list[str] | None:
    if named := os.environ.get("CC"):
        return shlex.split(named)
    found = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    return [found] if found else None


def go_peer() -> Path | None:
    """The Go peer's executable, or None where there is no Go."""
    folder = _BENCHMARKS / "peers" / "go"
    target = BUILT / "go-peer"
    if _is_stale(target, [*folder.glob("*.go"), folder / "go.mod"]):
        go = shutil.which("go")
        if go is None:
            return None
        _build([go, "build", "-o"], target, folder)
    return target


def python_peer() -> Path:
    """The interpreter of the Python peer's own environment, which holds exactly what its lock names."""
    lock = _BENCHMARKS / "peers" / "python" / "requirements.lock"
    environment = BUILT / "python-peer"
    installed = environment / "installed"
    python = environment / "bin" / "python"
    if _is_stale(installed, [lock]):
        shutil.rmtree(environment, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(environment)], ROOT)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*install, "--require-hashes", "-r", str(lock)], ROOT)
        installed.touch()
    return python


def _is_stale(target: Path, sources: Iterable[Path]) -> bool:
    return not target.exists() or any(path.stat().st_mtime > target.stat().st_mtime for path in sources)


def _build(command: Sequence[str], target: Path, folder: Path) -> None:
    BUILT.mkdir(exist_ok=True)
    unfinished = target.with_name(target.name + ".new")
    _run([*command, str(unfinished)], folder)
    unfinished.replace(target)


def _run(command: Sequence[str], folder: Path) -> None:
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_BUILD_TIMEOUT_S)
    if finished.returncode != 0:
        raise ConfigurationError(
            f"{shlex.join(command)} failed:\n{(finished.stderr or finished.stdout).strip()}"
        )
