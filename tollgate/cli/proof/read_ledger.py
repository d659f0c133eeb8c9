"""What the PSP did: the simulator's own ledger, taken as it streams in, however large it is.

The ledger's rows are flat, so that an object ends where `},{` stands; where that stands within a string, what
is cut there is no JSON, and the cut is made later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from http.client import HTTPConnection, HTTPException
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from tollgate.cli.proof.recorder import Recorder
from tollgate.cli.proof.testimony import Effect, Kind
from tollgate.client_log import parsed_us
from tollgate.errors import OperationalError
from tollgate.ids import payment_key

_TIMEOUT_S: Final = 60.0
_CHUNK_BYTES: Final = 1 << 18
_BEGINS: Final = b'{"effects":['
_ENDS: Final = b'],"calls":['
_BETWEEN: Final = b"},{"
_TOLD_EVERY: Final = 10_000


def read_effects(url: str, recorder: Recorder) -> int:
    """Returns how many effects there were. Raises OperationalError when the ledger can't be read."""
    count = 0
    try:
        for effect in rows_of(_chunks(url)):
            count += 1
            record = Effect(
                effect["id"],
                effect["type"],
                effect["idempotency_key"],
                effect["amount"],
                effect["currency"],
                parsed_us(effect["at"]),
            )
            recorder.add(Kind.EFFECT, payment_key(effect["merchant"], effect["checkout_id"]), record)
            if count % _TOLD_EVERY == 0:
                recorder.progress("the PSP's ledger", count, count + _TOLD_EVERY)
    except (OSError, HTTPException, ValueError, KeyError) as error:
        raise OperationalError(
            f"The PSP simulator's ledger at {url} could not be read ({type(error).__name__}: {error}). "
            "Look at `tollgate status`, and start the stack if it is down."
        ) from error
    recorder.progress("the PSP's ledger", count, count)
    return count


def _chunks(url: str) -> Iterator[bytes]:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/_ledger")
        answer = connection.getresponse()
        if answer.status != 200:
            raise ValueError(f"it answered {answer.status}")
        while chunk := answer.read(_CHUNK_BYTES):
            yield chunk
    finally:
        connection.close()


def rows_of(chunks: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The effects of a ledger that comes in pieces. Raises ValueError when it is none, or not whole."""
    pending = b""
    begun = False
    for chunk in chunks:
        pending += chunk
        if not begun:
            if len(pending) < len(_BEGINS):
                continue
            if not pending.startswith(_BEGINS):
                raise ValueError("its answer is no ledger")
            pending, begun = pending.removeprefix(_BEGINS), True
        rows, separator, _ = pending.partition(_ENDS)
        if separator:
            yield from orjson.loads(b"[" + rows + b"]")
            return
        whole, pending = _whole_rows(pending)
        yield from whole
    raise ValueError("its answer is not whole")


def _whole_rows(pending: bytes) -> tuple[list[dict[str, Any]], bytes]:
    """As many as there are, and what is left; the last row stays, as nothing says that it is over."""
    cut = len(pending)
    while (cut := pending.rfind(_BETWEEN, 0, cut)) >= 0:
        try:
            return orjson.loads(b"[" + pending[: cut + 1] + b"]"), pending[cut + 2 :]
        except orjson.JSONDecodeError:
            continue  # within a string
    return [], pending
