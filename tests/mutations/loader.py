"""Loads one module of production with a mutant's text in place of its own. Before anything imports it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType

from tests.mutations.mutants import Mutant


class _Loader(SourceFileLoader):
    def __init__(self, fullname: str, path: str, mutant: Mutant) -> None:
        super().__init__(fullname, path)
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_source(fullname) or ""
        if source.count(self._mutant.old) != 1:
            raise ImportError(
                f"mutant {self._mutant.name} no longer fits {fullname}: its text is not there once"
            )
        return compile(source.replace(self._mutant.old, self._mutant.new), self.path, "exec")


class _Finder(MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin, self._mutant)
        return spec


def mutate(mutant: Mutant) -> None:
    """Raises ImportError when the module is loaded already: it would stay as it is."""
    if mutant.module in sys.modules:
        raise ImportError(f"{mutant.module} is loaded already; a mutant needs a process of its own")
    sys.meta_path.insert(0, _Finder(mutant))
