"""The first witness: what clients were told."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tollgate.cli.proof.recorder import Recorder
from tollgate.cli.proof.testimony import Kind
from tollgate.client_log import read_client_log
from tollgate.errors import OperationalError
from tollgate.ids import payment_key

_TOLD_EVERY: Final = 10_000
_LINE_BYTES: Final = 300  # about: for the progress bar alone


def read_told(path: Path, merchant: str, recorder: Recorder) -> int:
    """`merchant` is whose log it is where a line doesn't say. Returns how many answers there were.

    Raises OperationalError or RejectedInput when it can't be read.
    """
    count = 0
    try:
        about = path.stat().st_size // _LINE_BYTES
    except OSError as error:
        raise OperationalError(f"The client log {path} can't be read ({error.strerror}).") from error
    for answer in read_client_log(path):
        count += 1
        where = f"{path.name}, line {count}"
        recorder.leaked(answer.leak, "an answer to a client", where)
        if answer.checkout_id:
            recorder.add(Kind.TOLD, payment_key(answer.merchant or merchant, answer.checkout_id), answer)
        if count % _TOLD_EVERY == 0:
            recorder.progress(path.name, count, max(about, count))
    recorder.progress(path.name, count, count)
    return count
