"""What a reader of the tree may rely on: fresh generated code, small modules, no name of one machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENERATED = Path("tollgate/v1")
LINES_MAX = 400


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *patterns], cwd=ROOT, capture_output=True, check=True, text=True
    )
    return [Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_the_generated_code_is_what_the_protos_say(tmp_path: Path) -> None:
    from grpc_tools import protoc

    sources = sorted((ROOT / "proto/tollgate/v1").glob("*.proto"))
    assert sources
    bin_dir = Path(sys.executable).parent
    code = protoc.main(
        [
            "protoc",
            f"-I{ROOT / 'proto'}",
            f"--plugin=protoc-gen-mypy={bin_dir / 'protoc-gen-mypy'}",
            f"--python_out={tmp_path}",
            f"--grpc_python_out={tmp_path}",
            f"--mypy_out=quiet:{tmp_path}",
            *map(str, sources),
        ]
    )
    assert code == 0
    for checked_in in sorted((ROOT / GENERATED).glob("*_pb2*.py*")):
        if checked_in.name.endswith("_grpc.pyi"):
            continue
        fresh = tmp_path / GENERATED / checked_in.name
        assert fresh.read_text() == checked_in.read_text(), f"{checked_in.name} is stale: run `make proto`"
    for source in sources:
        assert (ROOT / GENERATED / f"{source.stem}_pb2.py").exists(), f"{source.name} was never generated"


def test_no_module_is_more_than_one_mechanism_long() -> None:
    for path in tracked("*.py"):
        if path.is_relative_to(GENERATED):
            continue
        lines = (ROOT / path).read_text().count("\n")
        assert lines <= LINES_MAX, f"{path} has {lines} lines"


def test_nothing_names_a_registry_or_the_path_of_one_machine() -> None:
    registry = re.compile(
        r"https?://[^\s\"]*(pypi|pythonhosted|maven\.|npmjs|crates\.io|golang\.org/|deb\.debian)"
    )
    machine = re.compile(r"(^|[^A-Za-z0-9_./-])/(work|root|farm)/")
    for path in tracked():
        if path == Path(__file__).relative_to(ROOT):
            continue
        try:
            text = (ROOT / path).read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            assert not registry.search(line), f"{path}:{number} names a registry"
            assert not machine.search(line), f"{path}:{number} names a path of one machine"


def test_nothing_is_left_unfinished() -> None:
    unfinished = re.compile(r"\b(TODO|FIXME|NotImplementedError)\b")
    for path in tracked("*.py", "*.proto", "*.sql", "Makefile"):
        if path.is_relative_to(GENERATED) or path == Path(__file__).relative_to(ROOT):
            continue
        found = unfinished.search((ROOT / path).read_text())
        assert not found, f"{path} says {found.group() if found else ''}"


def test_tests_wait_for_conditions_not_for_the_clock() -> None:
    by_the_clock = re.compile(r"\btime\.sleep\([0-9.]*[0-9]\)|\basyncio\.sleep\((?!0\))[0-9.]+\)")
    for path in tracked("tests/*.py"):
        if path == Path(__file__).relative_to(ROOT):
            continue
        for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
            assert not by_the_clock.search(line), f"{path}:{number} sleeps"
