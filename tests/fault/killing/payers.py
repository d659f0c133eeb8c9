"""Clients of one shard that behave as the contract asks: no answer or a 503 means again, with the same id."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Final

from tests.fixtures.waiting import wait_until

PAYERS: Final = 6
_ANSWER_S: Final = 10.0
_GIVE_UP_S: Final = 600.0  # a machine that stands still is not the shard's fault
_AGAIN_S: Final = 0.01


@dataclass
class Payers:
    """`accepted` has every payment that was answered 202, or 200 after an answer was lost."""

    address: str
    api_key: str
    name: str
    accepted: dict[str, int] = field(default_factory=dict)  # checkout id → amount
    cut: int = 0  # requests whose connection ended before their answer
    wrong: list[str] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    def pay(self, payer: int) -> None:
        connection = HTTPConnection(self.address, timeout=_ANSWER_S)
        number = 0
        while not self._ended.is_set() and not self.wrong:
            number += 1
            self._pay_one(connection, f"{self.name}-{payer}-{number:06}", 1 + number)
        connection.close()

    def _pay_one(self, connection: HTTPConnection, checkout_id: str, amount: int) -> None:
        deadline = time.monotonic() + _GIVE_UP_S
        while time.monotonic() < deadline:
            status, answer = self._send(connection, checkout_id, amount)
            if status in (200, 202):
                self.accepted[checkout_id] = amount
                return
            if status not in (0, 503):
                self.wrong.append(f"{checkout_id}: {status} {answer!r}")
                return
            time.sleep(_AGAIN_S)
        self.wrong.append(f"{checkout_id}: not accepted within {_GIVE_UP_S:g} s")

    def _send(self, connection: HTTPConnection, checkout_id: str, amount: int) -> tuple[int, bytes]:
        """(0, …) when there was no answer."""
        body = json.dumps({"amount": amount, "currency": "USD", "payment_method": "pm_ok"})
        headers = {
            "Authorization": f"Bearer {self.api_key}",
            "Content-Type": "application/json",
            "X-PAYMENT-CHECKOUT-ID": checkout_id,
        }
        try:
            connection.request("POST", "/v1/payments", body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except ConnectionRefusedError:
            connection.close()
            return 0, b""
        except (OSError, HTTPException):
            self.cut += 1
            connection.close()
            return 0, b""

    def wait_for(self, more: int) -> None:
        """Until `more` payments than now are accepted."""
        goal = len(self.accepted) + more
        wait_until(lambda: len(self.accepted) >= goal or bool(self.wrong), "payments go on", _GIVE_UP_S)

    def end(self) -> None:
        """Each payer still sees its last payment through."""
        self._ended.set()


@contextmanager
def paying(payers: Payers) -> Iterator[Payers]:
    threads = [threading.Thread(target=payers.pay, args=(number,)) for number in range(PAYERS)]
    for thread in threads:
        thread.start()
    try:
        yield payers
    finally:
        payers.end()
        for thread in threads:
            thread.join()
    assert payers.wrong == []
