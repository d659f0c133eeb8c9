"""`tollgate logs PART`: the end of one part's log, and on request what is added to it."""

from __future__ import annotations

import sys
import time
from collections import deque
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from tollgate.cli.options import DataDir
from tollgate.errors import RejectedInput
from tollgate.local.paths import choose_data_dir

_POLL_S = 0.1


def logs(
    part: Annotated[str, typer.Argument(help="As `tollgate status` names it, or supervisor.")],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as the log grows, until Ctrl-C.")
    ] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many lines from the end.")] = 50,
    data_dir: DataDir = None,
) -> None:
    """Show the end of one part's log."""
    paths = choose_data_dir(data_dir)
    path = paths.log(part)
    if path.parent != paths.logs or not path.is_file():
        known = ", ".join(sorted(log.stem for log in paths.logs.glob("*.log"))) or "none yet"
        raise RejectedInput(f"There is no log of {part!r} in {paths.logs}. There is: {known}.")
    with path.open("rb") as log:
        _show(b"".join(deque(log, maxlen=lines)))
        if follow:
            _follow(path, log)


def _follow(path: Path, log: BinaryIO) -> None:
    """The supervisor cuts a log that has grown too long: reading then starts again at its beginning."""
    try:
        while True:
            if path.stat().st_size < log.tell():
                log.seek(0)
            _show(log.read())
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        return


def _show(text: bytes) -> None:
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()
