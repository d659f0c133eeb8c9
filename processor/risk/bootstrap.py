"""Builds the risk service from its settings, runs it, and ends it in order.

/readyz answers from the first moment; Postgres and its schema are waited for without an end.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from typing import Final

import structlog

from processor.patience import Health, persist
from processor.risk.rule_assessor import RuleAssessor
from processor.risk.rules_file import load_rules
from processor.risk.service import start_risk
from processor.risk.settings import RiskServiceSettings
from processor.risk.velocity import SharedCounts
from processor.storage.database import Pool, open_pool
from processor.storage.migrate import migrate
from tollgate.ops_http import serve_ops

_CLOSE_S: Final = 1.0
_POOL_MAX: Final = 4

_log = structlog.get_logger()


async def run_risk(settings: RiskServiceSettings) -> None:
    """Returns after SIGTERM or SIGINT. Raises ConfigurationError, or what broke a part that must not."""
    rules = load_rules(settings.risk.rules_file)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    health = Health()
    health.report("start", "The risk service is starting.")

    async def opened() -> Pool:
        await asyncio.to_thread(migrate, settings.postgres_dsn)
        return await open_pool(settings.postgres_dsn, _POOL_MAX)

    async def serve() -> None:
        async with AsyncExitStack() as stack:
            pool = await persist(health, "postgres", opened)
            stack.callback(pool.terminate)
            counting = SharedCounts(pool, rules.velocity)
            assessor = RuleAssessor(settings.risk.decline_at, rules, counting, settings.risk.timeout_s)
            server = await start_risk(settings.risk.listen, assessor)
            stack.push_async_callback(server.stop, _CLOSE_S)
            health.report("start", None)
            _log.info("ready", listen=settings.risk.listen, ops=settings.risk.ops)
            await counting.run()

    async with serve_ops(settings.risk.ops, health.not_ready_reason):
        serving, stopped = asyncio.create_task(serve()), asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if serving in done:
            serving.result()
        serving.cancel()
        await asyncio.wait({serving})
    _log.info("stopped")
