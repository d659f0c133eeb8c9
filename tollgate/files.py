"""Replacing a small file so that a reader sees the old one or the new one, whole, whatever is killed."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, content: str, *, mode: int = 0o600) -> None:
    """Atomic and durable. One writer at a time: the temporary name is fixed, so none is left over."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """The name is as durable as the content: else a power cut may bring the old file back."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
