"""Who looks on while a gateway is loaded: its health every 100 ms, its refusals read in full, its memory.

Each observer is a thread with one connection at a time, made anew for every question, as a prober's is: what
a load on other connections does to a newcomer is part of what is observed.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from statistics import median
from typing import Any, Final
from uuid import uuid4

from benchmarks.measure.generator import PAYMENT, Target
from benchmarks.measure.machine import memory_mib

_PROBE_S: Final = 0.1
_MEMORY_S: Final = 1.0
_TIMEOUT_S: Final = 5.0
# Memory before the load is no measure of memory under it: caches fill, buffers find their size.
_SETTLED_AFTER: Final = 0.25
_MEMBERS: Final = {"type", "title", "status", "detail", "code", "errors"}


@dataclass
class Observations:
    probes_ms: dict[str, list[float]] = field(default_factory=dict)
    unanswered: list[str] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    ill_formed: list[str] = field(default_factory=list)
    mib: dict[str, list[float]] = field(default_factory=dict)

    @property
    def slowest_ms(self) -> float:
        return max((max(found) for found in self.probes_ms.values() if found), default=0.0)

    @property
    def drift(self) -> float:
        """How far the memory of any part went from its own median, once it had settled."""
        away = [0.0]
        for found in self.mib.values():
            settled = found[int(len(found) * _SETTLED_AFTER) :]
            middle = median(settled) if settled else 0.0
            away += [abs(value / middle - 1) for value in settled]
        return max(away)

    def probe_latency_ms(self) -> dict[str, dict[str, float]]:
        return {name: _percentiles(found) for name, found in self.probes_ms.items() if found}

    def document(self) -> dict[str, Any]:
        return {
            "probes_ms": self.probe_latency_ms(),
            "unanswered": self.unanswered,
            "codes_of_samples": dict(self.codes),
            "ill_formed": self.ill_formed,
            "memory_mib": {name: [round(value, 1) for value in found] for name, found in self.mib.items()},
            "memory_drift": round(self.drift, 4),
        }


@contextmanager
def observing(
    target: Target, addresses: Mapping[str, str], pids: Mapping[str, list[int]]
) -> Iterator[Observations]:
    """`addresses` are asked for their health; samples of the load go to `target`."""
    seen, over = Observations(), threading.Event()

    def every(interval_s: float, look: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            while not over.is_set():
                look()
                over.wait(interval_s)

        return threading.Thread(target=run)

    def memory() -> None:
        for name, roots in pids.items():
            seen.mib.setdefault(name, []).append(memory_mib(roots))

    threads = [every(_MEMORY_S, memory), every(_PROBE_S, lambda: _sample(target, seen))]
    for name, address in addresses.items():
        for path in ("/livez", "/readyz"):
            threads.append(every(_PROBE_S, _prober(name, address, path, seen)))
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _prober(name: str, address: str, path: str, seen: Observations) -> Callable[[], None]:
    found = seen.probes_ms.setdefault(f"{name} {path}", [])

    def probe() -> None:
        began = time.perf_counter()
        try:
            status, _, _ = _ask(address, "GET", path)
        except (OSError, HTTPException) as error:
            seen.unanswered.append(f"{name} {path}: {error!r}")
            return
        found.append((time.perf_counter() - began) * 1e3)
        if status != 200:
            seen.unanswered.append(f"{name} {path}: {status}")

    return probe


def _sample(target: Target, seen: Observations) -> None:
    headers = {
        "Authorization": f"Bearer {target.api_key}",
        "Content-Type": "application/json",
        "X-PAYMENT-CHECKOUT-ID": str(uuid4()),
    }
    try:
        status, named, body = _ask(target.address, "POST", "/v1/payments", PAYMENT.read_bytes(), headers)
    except (OSError, HTTPException) as error:
        seen.ill_formed.append(repr(error))
        return
    if status == 202:
        seen.codes["accepted"] += 1
    elif (code := well_formed_refusal(status, named, body)) is not None:
        seen.codes[code] += 1
    else:
        seen.ill_formed.append(f"{status} {named} {body[:200]!r}")


def well_formed_refusal(status: int, headers: Mapping[str, str], body: bytes) -> str | None:
    """Its code, or None when it is not what decision 11 promises. Header names in lower case."""
    try:
        document = json.loads(body)
        again = int(headers["retry-after"])
    except (ValueError, KeyError):
        return None
    sound = (
        status in (429, 503)
        and headers.get("content-type") == "application/problem+json"
        and isinstance(document, dict)
        and set(document) == _MEMBERS
        and document["status"] == status
        and again >= 1
    )
    return str(document["code"]) if sound else None


def _ask(
    address: str, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    connection = HTTPConnection(address, timeout=_TIMEOUT_S)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def _percentiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    named = {f"p{percent:g}": ordered[int((len(ordered) - 1) * percent / 100)] for percent in (50, 99)}
    return {**{name: round(value, 3) for name, value in named.items()}, "max": round(ordered[-1], 3)}
