"""Keeps each part's log bounded: copied to one older file and cut, so that the part writes on undisturbed.

Parts hold their log open for appending, so after the cut their next line is the first. What is written
between the copy and the cut (microseconds) is lost: it is a development log.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

LOG_BYTES_MAX: Final = 20 * 1024 * 1024


def bound_logs(folder: Path, bytes_max: int = LOG_BYTES_MAX) -> None:
    """Cuts every `*.log` in `folder` that has grown past `bytes_max`. Blocking, some ms a cut."""
    for log in folder.glob("*.log"):
        with suppress(FileNotFoundError):
            if log.stat().st_size > bytes_max:
                shutil.copyfile(log, log.with_suffix(".log.1"))
                with log.open("r+b") as file:
                    file.truncate(0)
