"""What the parts have written into their logs: looked through for what must be nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tollgate.cli.proof.recorder import Recorder
from tollgate.errors import OperationalError

_TOLD_EVERY: Final = 10_000


def read_logs(paths: Sequence[Path], recorder: Recorder) -> None:
    """A log that is gone meanwhile was rotated away. Raises OperationalError when one can't be read."""
    for path in paths:
        try:
            _read(path, recorder)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise OperationalError(f"The log {path} can't be read ({error.strerror}).") from error


def _read(path: Path, recorder: Recorder) -> None:
    number = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            recorder.leaked(recorder.leaks.in_text(line), "a log", f"{path.name}, line {number}")
            if number % _TOLD_EVERY == 0:
                recorder.progress(path.name, number, number + _TOLD_EVERY)
    recorder.progress(path.name, number, number)
