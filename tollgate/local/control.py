"""Commands to a running supervisor: a unix socket in the data folder, for its owner alone.

A line of JSON asks; lines of JSON answer: notes while it goes on, then one result or error. What was begun is
carried on when the asker goes away. Nothing here survives a crash: what was begun stands in the ring file.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import structlog

from tollgate.errors import OperationalError, RejectedInput, TollgateError
from tollgate.local.ring_changer import RingChanger, Say

_LINE_BYTES_MAX: Final = 64 * 1024
_PATH_BYTES_MAX: Final = 100  # sockaddr_un holds 107 or fewer

_log = structlog.get_logger()


class Control:
    """`publish` is called before the answer: what the command changed stands in stack.json then."""

    def __init__(self, path: Path, changer: RingChanger, publish: Callable[[], None]) -> None:
        self._path = path
        self._changer = changer
        self._publish = publish
        self._begun: set[asyncio.Task[dict[str, Any]]] = set()

    async def serve(self) -> None:
        """Until cancelled. Only the holder of the data folder's lock may call it."""
        with _listening(self._path) as listening:
            server = await asyncio.start_unix_server(self._converse, sock=listening, limit=_LINE_BYTES_MAX)
            try:
                async with server:
                    await server.serve_forever()
            finally:
                for task in self._begun:
                    task.cancel()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(note: str) -> None:
            with suppress(ConnectionError):
                writer.write(_line({"note": note}))

        with suppress(ConnectionError, ValueError):
            asked = await reader.readline()
            task = asyncio.create_task(self._answer(asked, say))
            self._begun.add(task)
            task.add_done_callback(self._begun.discard)
            await asyncio.wait({task})
            if not task.cancelled():
                writer.write(_line(task.result()))
                await writer.drain()
        writer.close()

    async def _answer(self, asked: bytes, say: Say) -> dict[str, Any]:
        try:
            done = await self._carry_out(json.loads(asked), say)
            self._publish()
        except (TollgateError, OSError) as error:
            _log.warning("a command failed", command=_shown(asked), error=str(error))
            return {"error": str(error)}
        except Exception as error:  # the edge: the asker hears of it, and the supervisor goes on
            _log.exception("a command met a defect", command=_shown(asked))
            return {"error": f"A defect: {type(error).__name__}: {error}. Read the supervisor's log."}
        return {"done": done}

    async def _carry_out(self, command: dict[str, Any], say: Say) -> dict[str, Any]:
        match command:
            case {"do": "add"}:
                shard = await self._changer.add(say)
                return {"shard": shard.id, "name": shard.name}
            case {"do": "remove", "shard": int(shard)}:
                await self._changer.remove(shard, say)
                return {"shard": shard}
        raise RejectedInput(f"The supervisor knows no command {command!r}. Is it of another release?")


def ask(path: Path, command: dict[str, Any], say: Say, timeout_s: float) -> dict[str, Any]:
    """Blocking; `say` is called with each note. Raises OperationalError when it fails or can't be known."""
    deadline = time.monotonic() + timeout_s
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as answers:
        try:
            connection.settimeout(timeout_s)
            with _address(path) as address:
                connection.connect(address)
            connection.sendall(_line(command))
            while line := answers.readline():
                answer = json.loads(line)
                if "note" not in answer:
                    return _result(answer)
                say(answer["note"])
                connection.settimeout(max(0.001, deadline - time.monotonic()))
        except TimeoutError:
            raise OperationalError(
                f"Not complete after {timeout_s:g} s. The supervisor goes on with it; "
                "`tollgate shards list` shows how far it is."
            ) from None
        except OSError as error:
            raise OperationalError(f"The supervisor can't be asked at {path} ({error.strerror}).") from None
    raise OperationalError(
        "The supervisor ended before it was done. What was begun is finished after the next `tollgate up`."
    )


def _result(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" in answer:
        raise OperationalError(str(answer["error"]))
    done: dict[str, Any] = answer["done"]
    return done


def _shown(asked: bytes) -> str:
    return asked.decode(errors="replace").strip()


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


@contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    path.unlink(missing_ok=True)  # of a supervisor that was killed
    listening = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        with _address(path) as address:
            listening.bind(address)
    finally:
        os.umask(before)
    try:
        yield listening
    finally:
        listening.close()
        path.unlink(missing_ok=True)


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """A path that fits into a socket's address, however deep the data folder lies."""
    if len(os.fsencode(path)) <= _PATH_BYTES_MAX:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
