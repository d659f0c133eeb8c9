"""Clients behind nginx: they pay, poll, capture, cancel and refund, ask again when nothing comes back, and
keep what they were told. What its owner has shown of a payment, it never shows older: a shard that stands in
for it passes on what the Ledger says, which may be ahead of what the owner shows once it is back.

nginx is its rule: the ring's owner of the id, or the next one whose connection can be made; what was sent
once is never sent again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import Any, Final

import orjson

from gateway.http.message import Response
from tests.simulation.loop import VirtualLoop
from tests.simulation.network import Lost, Network, Refused
from tests.simulation.shard import MERCHANTS, WEBHOOK_SECRET, SimShard
from tests.simulation.trace import Trace
from tests.simulation.watch import Watch
from tollgate.ring_file import RingFile, ShardEntry
from tollgate.ring_hash import HOLDERS, Ring
from tollgate.v1.payment_pb2 import OperationType
from tollgate.webhooks.simulator import signed_headers

TRIES: Final = 4
_ANSWER_S: Final = 4.0
_KINDS: Final = {
    "capture": OperationType.OPERATION_TYPE_CAPTURE,
    "cancel": OperationType.OPERATION_TYPE_CANCEL,
    "refund": OperationType.OPERATION_TYPE_REFUND,
}

Content = dict[str, Any]


@dataclass
class Purchase:
    """One checkout as its client knows it."""

    merchant: str
    checkout_id: str
    contents: list[Content] = field(default_factory=list)  # what was sent under the id
    told: list[Content] = field(default_factory=list)  # what was accepted, as the client was told
    shown: int = 0  # the version that was seen last
    seen: dict[tuple[int, int], int] = field(default_factory=dict)  # the highest, by ring and owner
    is_known: bool = False  # an answer said that the payment is there
    operations: dict[str, str] = field(default_factory=dict)  # by Idempotency-Key
    etag: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.merchant, self.checkout_id


class Clients:
    def __init__(
        self,
        loop: VirtualLoop,
        random: Random,
        network: Network,
        trace: Trace,
        watch: Watch,
        shards: dict[int, SimShard | None],
    ) -> None:
        self.process = loop.process("client")
        self.ring: RingFile  # as nginx goes by it
        self.purchases: list[Purchase] = []
        self.counts: Counter[str] = Counter()
        self.busy = 0
        self._loop = loop
        self._random = random
        self._network = network
        self._trace = trace
        self._watch = watch
        self._shards = shards

    # What they do

    def pay(self, number: int, amount: int, method: str, *, manual: bool, times: int) -> None:
        """`times`: an impatient customer, or a proxy, sends it more than once at the same moment."""
        purchase = Purchase(MERCHANTS[number % len(MERCHANTS)], f"checkout-{len(self.purchases):04}")
        self.purchases.append(purchase)
        content: Content = {"amount": amount, "currency": "EUR", "payment_method": method}
        if manual:
            content["capture"] = "manual"
        for _ in range(times):
            self._do(self._post(purchase, content))

    def pay_again(self, number: int, *, other: bool) -> None:
        if (purchase := self._one(number)) and purchase.contents:
            content = purchase.contents[0] | ({"amount": 7} if other else {})
            self._do(self._post(purchase, content))

    def poll(self, number: int) -> None:
        if purchase := self._one(number):
            self.read(purchase)

    def read(self, purchase: Purchase) -> None:
        self._do(self._get(purchase))

    def operate(self, kind: str, number: int, amount: int | None, key: str) -> None:
        if purchase := self._one(number):
            self._do(self._operate(purchase, kind, amount, key))

    def change(self, number: int, text: str) -> None:
        if (purchase := self._one(number)) and purchase.etag is not None:
            self._do(self._patch(purchase, purchase.etag, text))

    async def tell(self, event_id: str, body: bytes) -> bool:
        """A webhook of the PSP, by any shard. Runs in the PSP's process."""
        now_s = self.process.now_us() / 1e6
        headers = list(signed_headers(WEBHOOK_SECRET, event_id, body, now_s).items())
        order = list(self.ring.shards)
        first = int(self._random.random() * len(order))
        names = [entry.name for entry in order[first:] + order[:first]]
        answer, _ = await self._ask(names, lambda shard: shard.hear(headers, body))
        return answer is not None and answer.status == 200

    def _one(self, number: int) -> Purchase | None:
        """Of the latest, mostly."""
        count = len(self.purchases)
        return self.purchases[max(0, count - 1 - number % 30)] if count else None

    def _do(self, doing: Awaitable[None]) -> None:
        async def counted() -> None:
            self.busy += 1
            await doing
            self.busy -= 1

        self.process.spawn(counted())

    # Over nginx

    async def _ask(
        self, names: Sequence[str], act: Callable[[SimShard], Awaitable[Response]]
    ) -> tuple[Response | None, int | None]:
        """The answer, if there was one, and whose it is."""
        ids = {shard.name: shard.id for shard in self.ring.shards}
        for name in names:
            shard = self._shards.get(ids[name])
            if shard is None:
                continue
            try:
                return await self._over(shard, act), ids[name]
            except Refused:
                continue
            except Lost:
                return None, None
        return None, None

    async def _over(self, shard: SimShard, act: Callable[[SimShard], Awaitable[Response]]) -> Response:
        return await self._network.call(lambda: shard.process, lambda: act(shard), _ANSWER_S)

    async def _send(
        self, purchase: Purchase, act: Callable[[SimShard], Awaitable[Response]]
    ) -> Response | None:
        return (await self._sent(purchase, act))[0]

    async def _sent(
        self, purchase: Purchase, act: Callable[[SimShard], Awaitable[Response]]
    ) -> tuple[Response | None, int | None]:
        return await self._ask(_ring(self.ring.shards).preference(purchase.checkout_id, HOLDERS), act)

    async def _answered(
        self,
        purchase: Purchase,
        shard: SimShard,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
    ) -> Response:
        """In the shard's process, to the moment at which its answer goes out."""
        answer = await shard.handle(method, path, headers, body)
        if answer.status in (200, 202):
            self._watch.told(purchase.key, orjson.loads(answer.body)["version"])
        return answer

    def _headers(self, purchase: Purchase, *more: tuple[str, str]) -> list[tuple[str, str]]:
        return [
            ("authorization", f"Bearer key-{purchase.merchant}"),
            ("content-type", "application/json"),
            *more,
        ]

    async def _post(self, purchase: Purchase, content: Content) -> None:
        purchase.contents.append(content)
        headers = self._headers(purchase, ("x-payment-checkout-id", purchase.checkout_id))
        body = orjson.dumps(content)
        for _ in range(TRIES):
            answer = await self._send(
                purchase, lambda shard: self._answered(purchase, shard, "POST", "/v1/payments", headers, body)
            )
            self._note("POST", purchase, answer)
            match None if answer is None else answer.status:
                case 200 | 202:
                    assert answer is not None
                    purchase.is_known = True
                    if answer.status == 202:
                        purchase.seen.clear()  # accepted, anew where nobody could be asked about it
                    if content not in purchase.told:
                        purchase.told.append(content)
                    document = orjson.loads(answer.body)
                    if document["amount"] != content["amount"]:
                        self._watch.says("I1", f"{purchase.checkout_id} was told another amount")
                    return
                case 422:
                    if all(other == content for other in purchase.contents):
                        self._watch.says("I2", f"{purchase.checkout_id} conflicts with itself")
                    return
                case None | 503 | 429:
                    await asyncio.sleep(0.2 + self._random.random())
                case status:
                    self._watch.says("HTTP", f"POST {purchase.checkout_id} was answered {status}")
                    return

    async def _get(self, purchase: Purchase) -> None:
        known, seen, ring = purchase.is_known, dict(purchase.seen), self.ring
        path, headers = f"/v1/payments/{purchase.checkout_id}", self._headers(purchase)
        answer, shard = await self._sent(
            purchase, lambda shard: self._answered(purchase, shard, "GET", path, headers, b"")
        )
        self._note("GET", purchase, answer)
        if answer is None or answer.status == 503:
            return
        if answer.status == 404:
            if known:
                self._watch.says("false 404", f"{purchase.checkout_id} was accepted and is denied")
            return
        if answer.status != 200:
            self._watch.says("HTTP", f"GET {purchase.checkout_id} was answered {answer.status}")
            return
        document = orjson.loads(answer.body)
        version = purchase.shown = document["version"]
        if shard is not None and _owner(ring.shards, purchase.checkout_id) == shard:
            at = ring.version, shard
            if version < seen.get(at, 0) and at in purchase.seen:
                self._watch.says(
                    "I5", f"{purchase.checkout_id}: shard {shard} showed version {seen[at]}, now {version}"
                )
            purchase.seen[at] = max(purchase.seen.get(at, 0), version)
        purchase.is_known = True
        purchase.etag = f'"{document["version"]}"'
        if all(document["amount"] != content["amount"] for content in purchase.contents):
            self._watch.says("I1", f"{purchase.checkout_id} shows an amount that nobody sent")

    async def _operate(self, purchase: Purchase, kind: str, amount: int | None, key: str) -> None:
        headers = self._headers(purchase, ("idempotency-key", key))
        body = b"{}" if amount is None or kind == "cancel" else orjson.dumps({"amount": amount})
        for _ in range(TRIES):
            known = purchase.is_known
            answer = await self._send(
                purchase, lambda shard: shard.operate(_KINDS[kind], purchase.checkout_id, headers, body)
            )
            self._note(kind, purchase, answer)
            match None if answer is None else answer.status:
                case 200 | 202:
                    assert answer is not None
                    operation = orjson.loads(answer.body)["id"]
                    if purchase.operations.setdefault(key, operation) != operation:
                        self._watch.says("I2", f"{key} of {purchase.checkout_id} made two operations")
                    return
                case 404 if known:
                    self._watch.says("false 404", f"{purchase.checkout_id} was accepted and is denied")
                    return
                case None | 503 | 429:
                    await asyncio.sleep(0.2 + self._random.random())
                case 404 | 409 | 422:
                    return
                case status:
                    self._watch.says("HTTP", f"{kind} {purchase.checkout_id} was answered {status}")
                    return

    async def _patch(self, purchase: Purchase, etag: str, text: str) -> None:
        headers = self._headers(purchase, ("if-match", etag))
        path, body = f"/v1/payments/{purchase.checkout_id}", orjson.dumps({"description": text})
        answer = await self._send(
            purchase, lambda shard: self._answered(purchase, shard, "PATCH", path, headers, body)
        )
        self._note("PATCH", purchase, answer)
        if answer is not None and answer.status == 200:
            version = orjson.loads(answer.body)["version"]
            if f'"{version - 1}"' != etag:
                self._watch.says("I5", f"PATCH of {etag} of {purchase.checkout_id} made {version}")
        elif answer is not None and answer.status not in (404, 409, 412, 503):
            self._watch.says("HTTP", f"PATCH {purchase.checkout_id} was answered {answer.status}")

    def _note(self, what: str, purchase: Purchase, answer: Response | None) -> None:
        status = "nothing" if answer is None else str(answer.status)
        self.counts[f"{what} {status}"] += 1
        self._trace.add(self._loop.now_us, "client", f"{what} {purchase.checkout_id} {status}")


def _owner(shards: tuple[ShardEntry, ...], checkout_id: str) -> int:
    name = _ring(shards).owner(checkout_id)
    return next(shard.id for shard in shards if shard.name == name)


@lru_cache(64)
def _ring(shards: tuple[ShardEntry, ...]) -> Ring:
    return Ring([shard.name for shard in shards])
