"""What clients were told, one line an answer: the witness that stands outside of the whole system.

JSON lines, described in docs/client-log.md. One process writes one file; a line that was being written when
it died is dropped by the reader, and with it nothing but its own testimony. No key, and of an answer only
what can be compared later: whether all of it held anything secret is decided when it is written
(`find_leak`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import orjson

from tollgate.clock import rfc3339
from tollgate.errors import OperationalError, RejectedInput

_KEPT: Final = (
    "status",
    "version",
    "amount",
    "currency",
    "captured_amount",
    "refunded_amount",
    "capture",
    "id",
    "type",
    "code",
)
_KEPT_OF_OPERATION: Final = ("id", "type", "amount", "status")


class ClientAnswer(NamedTuple):
    """`status` is HTTP's, 0 when there was no answer; `request` the body that was sent; `answer` what is kept
    of the one that came. Times are microseconds since the Unix epoch, by the client's clock.
    """

    sent_us: int
    at_us: int
    method: str
    path: str  # without its query
    merchant: str  # empty: the one whose log it is
    checkout_id: str
    idempotency_key: str
    request: dict[str, Any] | None
    status: int
    answer: dict[str, Any]
    leak: str  # what the answer must not have held, by its name; empty: nothing


class ClientLog:
    """Appends to `path`. Use as a context manager: lines are buffered."""

    def __init__(
        self, path: Path, merchant: str = "", find_leak: Callable[[bytes], str] = lambda _body: ""
    ) -> None:
        """Raises OperationalError when the file can't be written."""
        self.path = path
        self._merchant = merchant
        self._find_leak = find_leak
        try:
            self._file = path.open("ab")
        except OSError as error:
            raise OperationalError(f"{path} can't be written ({error.strerror}).") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def flush(self) -> None:
        self._file.flush()

    def write(
        self,
        *,
        sent_us: int,
        at_us: int,
        method: str,
        path: str,
        status: int,
        body: bytes = b"",
        checkout_id: str = "",
        idempotency_key: str = "",
        request: Mapping[str, Any] | None = None,
        etag: str = "",
    ) -> None:
        """`etag`, as it came, is what a 304 says. A path with a query loses it."""
        line: dict[str, Any] = {
            "sent": rfc3339(sent_us),
            "at": rfc3339(at_us),
            "method": method,
            "path": path.partition("?")[0],
            "merchant": self._merchant,
            "checkout_id": checkout_id,
            "status": status or None,
            "answer": kept_of(body) or _version_of(etag),
        }
        if idempotency_key:
            line["idempotency_key"] = idempotency_key
        if request is not None:
            line["request"] = request
        if leak := self._find_leak(body):
            line["leak"] = leak
        self._file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))


def kept_of(body: bytes) -> dict[str, Any]:
    """What of an answer's body is compared later; empty when it is no JSON object."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(document, dict):
        return {}
    if "code" in document:
        return {"code": document["code"]}  # problem+json: its status is HTTP's
    kept = {name: document[name] for name in _KEPT if name in document}
    if operations := document.get("operations"):
        kept["operations"] = [
            {name: operation.get(name) for name in _KEPT_OF_OPERATION} for operation in operations
        ]
    return kept


def _version_of(etag: str) -> dict[str, Any]:
    version = etag.strip('"')
    return {"version": int(version)} if version.isdecimal() else {}


def read_client_log(path: Path) -> Iterator[ClientAnswer]:
    """In the order of the file. Raises RejectedInput that names the line that is none, OperationalError."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return  # being written, or cut off by a death
                yield _read(line, f"{path}, line {number}")
    except OSError as error:
        raise OperationalError(f"The client log {path} can't be read ({error.strerror}).") from error


def _read(line: bytes, where: str) -> ClientAnswer:
    try:
        told = orjson.loads(line)
        return ClientAnswer(
            parsed_us(told["sent"]),
            parsed_us(told["at"]),
            told["method"],
            told["path"],
            told.get("merchant") or "",
            told.get("checkout_id") or "",
            told.get("idempotency_key") or "",
            told.get("request"),
            told["status"] or 0,
            told.get("answer") or {},
            told.get("leak") or "",
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise RejectedInput(
            f"{where} is not a client's answer ({type(error).__name__}: {error}). "
            "docs/client-log.md says what one is."
        ) from None


def parsed_us(at: str) -> int:
    """Microseconds of an RFC 3339 time, exact."""
    return round(datetime.fromisoformat(at).timestamp() * 1_000_000)
