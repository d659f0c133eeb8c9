"""`python -m tollgate.local.simulator`: recovers the ledger, serves until SIGTERM, then ends."""

from __future__ import annotations

import asyncio
import gc
import random
import secrets
import signal
import sys
from typing import Final

import structlog
import uvloop

from tollgate.clock import Clock, SystemClock
from tollgate.errors import TollgateError
from tollgate.local.simulator.journal import Journal
from tollgate.local.simulator.ledger import Ledger
from tollgate.local.simulator.scenario import Director
from tollgate.local.simulator.server import SimulatorServer
from tollgate.local.simulator.service import Service
from tollgate.local.simulator.settings import Settings, SimulatorSettings
from tollgate.local.simulator.webhooks import WebhookSender
from tollgate.settings import load
from tollgate.telemetry import configure_logging

_STOP_S: Final = 1.0

_log = structlog.get_logger()


async def serve(settings: SimulatorSettings) -> int:
    """The exit code: 0 after SIGTERM, 1 when the journal can't be written any more."""
    journal = Journal(settings.data_dir / "ledger.journal")
    ledger = Ledger(journal)
    gc.freeze()  # what was recovered lives as long as the process
    clock = SystemClock()
    director = Director(random.Random(settings.seed))  # noqa: S311 - rates of made-up trouble, not secrets
    public_url = settings.public_url or f"http://{settings.listen}"
    sender = _sender(settings, ledger, clock)
    service = Service(
        ledger,
        director,
        clock,
        lambda prefix: f"{prefix}_{secrets.token_hex(12)}",
        public_url,
        sender.tell if sender else lambda _event_id: None,
        settings.late_s,
    )
    service.resume()
    server = SimulatorServer(service, ledger, director, clock)
    await server.start(settings.listen)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    _log.info("serving", listen=settings.listen)
    waiting: list[asyncio.Task[object]] = [
        asyncio.create_task(event.wait()) for event in (stopping, server.failed)
    ]
    if sender is not None:
        waiting.append(asyncio.create_task(sender.run()))
    ended, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    await server.stop(_STOP_S)
    journal.close()
    for task in ended:
        task.result()
    if journal.failure is not None:
        _log.error("journal failed", path=str(journal.path), error=journal.failure.strerror)
    return 1 if server.failed.is_set() else 0


def _sender(settings: SimulatorSettings, ledger: Ledger, clock: Clock) -> WebhookSender | None:
    if settings.webhook_url is None or settings.webhook_secret is None:
        return None
    return WebhookSender(settings.webhook_url, settings.webhook_secret.get_secret_value(), ledger, clock)


def main() -> int:
    configure_logging("psp-simulator")
    try:
        settings = load(Settings)
        configure_logging("psp-simulator", settings.log_level)
        return uvloop.run(serve(settings.simulator))
    except (TollgateError, OSError) as error:
        _log.error("not started", error=str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
