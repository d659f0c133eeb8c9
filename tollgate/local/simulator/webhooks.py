"""The simulator's webhooks on their way: signed, repeated until they are taken, whoever dies meanwhile.

What is untold is in the ledger, so a simulator that was killed goes on where it was; what was taken just
before may be sent once more. Order is nobody's promise, as at any PSP.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Final

import aiohttp
import structlog

from tollgate.clock import Clock
from tollgate.local.simulator.ledger import Ledger
from tollgate.webhooks.simulator import SimulatorWebhooks, signed_headers

_SENDERS: Final = 16
_TIMEOUT_S: Final = 10.0
_RETRY_FIRST_S: Final = 0.25
_RETRY_MOST_S: Final = 10.0

_log = structlog.get_logger()


class WebhookSender:
    """`tell` may be called once the event is durable. Raises ConfigurationError for a secret that is none."""

    def __init__(self, url: str, secret: str, ledger: Ledger, clock: Clock) -> None:
        SimulatorWebhooks([secret])
        self._url = url
        self._secret = secret
        self._ledger = ledger
        self._clock = clock
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._tries: defaultdict[str, int] = defaultdict(int)

    def tell(self, event_id: str) -> None:
        self._queue.put_nowait(event_id)

    async def run(self) -> None:
        """Until cancelled; begins with what an earlier run left untold."""
        for event_id in self._ledger.untold:
            self.tell(event_id)
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as senders:
            for _ in range(_SENDERS):
                senders.create_task(self._send_all(session))

    async def _send_all(self, session: aiohttp.ClientSession) -> None:
        while True:
            event_id = await self._queue.get()
            body = self._ledger.untold.get(event_id)
            if body is None:
                continue
            refusal = await self._post(session, event_id, body)
            if refusal is None:
                del self._tries[event_id]
                self._ledger.told(event_id)
                continue
            self._tries[event_id] += 1
            wait_s = min(_RETRY_FIRST_S * 2 ** min(self._tries[event_id], 16), _RETRY_MOST_S)
            _log.info("webhook not taken", event_id=event_id, detail=refusal, again_s=wait_s)
            asyncio.get_running_loop().call_later(wait_s, self.tell, event_id)

    async def _post(self, session: aiohttp.ClientSession, event_id: str, body: bytes) -> str | None:
        """None when it was taken, else why not."""
        self._tries[event_id] += 0
        signed = signed_headers(self._secret, event_id, body, self._clock.now_us() / 1e6)
        headers = signed | {"Content-Type": "application/json"}
        try:
            async with session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
                await answer.read()
                return None if answer.status // 100 == 2 else f"it was answered {answer.status}"
        except (aiohttp.ClientError, TimeoutError) as error:
            return f"no answer: {type(error).__name__}"
