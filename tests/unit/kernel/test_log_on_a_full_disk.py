from __future__ import annotations

import errno
import io
import sys
from typing import NoReturn

import pytest
import structlog

from tollgate.telemetry import configure_logging


class FullDisk(io.StringIO):
    def write(self, _text: str) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_log_that_can_not_be_written_breaks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    before = structlog.get_config()
    disk = FullDisk()
    monkeypatch.setattr(sys, "stderr", disk)
    try:
        configure_logging("shard-0")
        structlog.get_logger().error("the store failed")
    finally:
        structlog.configure(**before)
        structlog.contextvars.clear_contextvars()
        monkeypatch.undo()
    with pytest.raises(OSError, match="No space left"):
        disk.write("a line")
