"""Several shards, a Ledger and a ring that changes, against what clients were told: no payment is denied.

The shards are the production code on stores in memory; nginx is its rule (the owner, or the next whose
connection can be made), the Ledger a dict that takes in what shards ship, the first of an id wins. Worlds are
drawn from their seed: hypothesis would spend most of its steps on anything but a payment.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

import pytest

from gateway.planner import StatusBatch
from gateway.settings import LookUpSettings, ShardSettings
from gateway.snapshots import snapshot_of
from tests.fixtures.elsewhere import NOW_US, Known, entries, grpc_of
from tests.fixtures.shard import BODY, MERCHANT, InProcessShard, document, in_process_shard
from tollgate.errors import OperationalError
from tollgate.ids import payment_key
from tollgate.ring_file import FormerRing, RingFile
from tollgate.ring_hash import Ring
from tollgate.shard_layout import CHANGES, encode_u64
from tollgate.v1.change_pb2 import Change
from tollgate.v1.payment_pb2 import Payment, Status

WORLDS, STEPS = 20, 150
SHARDS_MAX = 5
AMOUNTS = [1, 2]
_FAIL_OVER_TO = 3  # the owner and the next two


@dataclass
class Node(Known):
    """One shard of the ring, and what others hear of it."""

    shard: InProcessShard
    up: bool = True
    shipped: int = 0
    owed: list[Payment] = field(default_factory=list)  # snapshots on their way

    async def find(self, merchant: str, checkout_id: str) -> Payment | None:
        if not self.up:
            raise OperationalError("It is down.")
        return self.stored(checkout_id)

    def stored(self, checkout_id: str) -> Payment | None:
        raw = self.shard.committer.read(payment_key(MERCHANT, checkout_id))
        return None if raw is None else Payment.FromString(raw)


class RingOfShards:
    """A step is one thing that a client or a part does, drawn by `random`."""

    def __init__(self, folder: Path, random: Random, runner: asyncio.Runner) -> None:
        self.folder = folder
        self.random = random
        self.runner = runner
        self.ids = [f"checkout-{n:04}" for n in range(4)]
        self.nodes: dict[int, Node] = {}
        self.retired: set[int] = set()
        self.postgres: dict[tuple[str, str], Payment] = {}
        self.shippers: dict[str, set[int]] = {}
        self.told: dict[str, set[int]] = {}  # the amounts under which an id was accepted
        self.ring = RingFile(version=1, next_id=2, shards=entries((0, 1)))
        self.counts: Counter[str] = Counter()
        for shard in (0, 1):
            self._start(shard)

    def step(self) -> None:
        random = self.random
        checkout_id, shard = random.choice(self.ids), random.choice(list(self.nodes))
        steps: dict[Callable[[], None], int] = {
            partial(self.post, checkout_id, random.choice(AMOUNTS)): 8,
            partial(self.get, checkout_id): 8,
            partial(self.goes_down, shard): 2,
            partial(self.comes_back, shard): 3,
            partial(self.ledger, silent=random.random() < 0.5): 1,
            partial(self.ships, shard): 2,
            partial(self.is_decided, checkout_id): 2,
            self.adds_a_shard: 1,
            partial(self.removes_a_shard, shard): 1,
            self.all_comes_to_rest: 1,
            self.a_new_id: 2,
        }
        [step] = random.choices(list(steps), list(steps.values()))
        step()
        for node in self.nodes.values():
            node.shard.clock.advance(2)

    def a_new_id(self) -> None:
        self.ids[self.random.randrange(4)] = f"checkout-{self.random.getrandbits(32):08x}"

    # What clients do.

    def post(self, checkout_id: str, amount: int) -> None:
        node = self._served_by(checkout_id)
        if node is None:
            return
        known = self._owners_with(checkout_id)
        answer = self.runner.run(node.shard.post(checkout_id, BODY | {"amount": amount}))
        self.counts[f"post {answer.status}"] += 1
        told = self.told.setdefault(checkout_id, set())
        if answer.status == 202:
            assert not (told and self._all_is_told()), "the Ledger was there to be asked"
            assert not known, "an owner that has it was there to be asked"
            told.add(amount)
        elif answer.status == 200:
            assert amount in told
        else:
            assert answer.status == 422
            assert told - {amount}, "there is no other content"

    def get(self, checkout_id: str) -> None:
        """By the ring, or by any shard that runs: a request may come by a former one."""
        running = [node for node in self.nodes.values() if node.up]
        node = self._served_by(checkout_id) if self.random.random() < 0.7 else None
        if node is None and not running:
            return
        node = node or self.random.choice(running)
        answer = self.runner.run(node.shard.get(checkout_id))
        self.counts[f"get {answer.status}"] += 1
        told = self.told.get(checkout_id, set())
        if answer.status == 200:
            assert document(answer)["amount"] in told
        elif answer.status == 404:
            assert not told, "a false 404"
        else:
            assert answer.status == 503
            assert not self._all_is_told()
        if self._all_is_told() and told:
            [winner] = [p for (_, found), p in self.postgres.items() if found == checkout_id]
            assert document(answer)["version"] == winner.version
            assert document(answer)["amount"] == winner.amount

    # What happens to the parts.

    def goes_down(self, shard: int) -> None:
        self.nodes[shard].up = False

    def comes_back(self, shard: int) -> None:
        if shard not in self.retired:
            self.nodes[shard].up = True
            self._deliver(self.nodes[shard])

    def ledger(self, *, silent: bool) -> None:
        for node in self.nodes.values():
            node.shard.ledger.silent = silent

    def ships(self, shard: int) -> None:
        if self.nodes[shard].up:
            self._ship(shard)

    def is_decided(self, checkout_id: str) -> None:
        for (_, found), payment in list(self.postgres.items()):
            if found == checkout_id and payment.version < 3:
                payment.version += 1
                payment.status = Status.STATUS_SUCCEEDED if payment.version == 3 else payment.status
                self._tell(payment)

    def adds_a_shard(self) -> None:
        shard = self.ring.next_id
        if shard == SHARDS_MAX:
            return
        self._start(shard)
        on_ring = (*(entry.id for entry in self.ring.shards), shard)
        self._change(on_ring, shard + 1)

    def removes_a_shard(self, leaving: int) -> None:
        rest = tuple(entry.id for entry in self.ring.shards if entry.id != leaving)
        if not rest or len(rest) == len(self.ring.shards) or not self.nodes[leaving].up:
            return
        self._change(rest, self.ring.next_id)
        self._ship(leaving)
        self.retired.add(leaving)
        self._show_ring(self.ring.model_copy(update={"retired": tuple(sorted(self.retired))}))
        self.nodes[leaving].up = False

    def all_comes_to_rest(self) -> None:
        """Everybody is back, and all is shipped and delivered."""
        self.ledger(silent=False)
        for number in self.nodes:
            self.comes_back(number)
        for number, node in self.nodes.items():
            if node.up:
                self._ship(number)

    def _all_is_told(self) -> bool:
        """Nobody who counts is away, and nothing is on its way."""
        for number, node in self.nodes.items():
            if number in self.retired:
                continue
            if not node.up or node.shard.ledger.silent or node.shipped < node.shard.committer.durable.last:
                return False
        return True

    def _owners_with(self, checkout_id: str) -> set[int]:
        """Owners, now or before, that have it and can be asked."""
        rings = (self.ring.shards, *(former.shards for former in self.ring.history))
        owners = {self.ring.model_copy(update={"shards": ring}).owner(checkout_id).id for ring in rings}
        return {n for n in owners if self.nodes[n].up and self.nodes[n].stored(checkout_id) is not None}

    def _served_by(self, checkout_id: str) -> Node | None:
        ids = {entry.name: entry.id for entry in self.ring.shards}
        preferred = Ring(list(ids)).preference(checkout_id, _FAIL_OVER_TO)
        return next((self.nodes[ids[name]] for name in preferred if self.nodes[ids[name]].up), None)

    def _start(self, number: int) -> None:
        folder = self.folder / str(number)
        folder.mkdir()

        async def start() -> InProcessShard:
            address = grpc_of(number)
            return in_process_shard(
                folder,
                shard=ShardSettings(id=number, data_dir=folder, http=address, grpc=address),
                look_ups=LookUpSettings(shipped_within_s=0),
            )

        shard = self.runner.run(start())
        if self.nodes:
            shard.ledger.silent = next(iter(self.nodes.values())).shard.ledger.silent
        shard.ledger.payments = self.postgres
        self.nodes[number] = Node(shard)
        for node in self.nodes.values():
            node.shard.others.at = {grpc_of(known): self.nodes[known] for known in self.nodes}
        self._show_ring(self.ring)

    def _change(self, on_ring: tuple[int, ...], next_id: int) -> None:
        left = FormerRing(version=self.ring.version, left_at_us=NOW_US, shards=self.ring.shards)
        self._show_ring(
            self.ring.model_copy(
                update={
                    "version": self.ring.version + 1,
                    "next_id": next_id,
                    "shards": entries(on_ring),
                    "history": (left, *self.ring.history),
                }
            )
        )

    def _show_ring(self, ring: RingFile) -> None:
        self.ring = ring
        for number, node in self.nodes.items():
            node.shard.ring.own = number
            node.shard.ring.set(ring)

    def _ship(self, number: int) -> None:
        node = self.nodes[number]
        first, last = node.shipped + 1, node.shard.committer.durable.last
        for _, raw in node.shard.store.scan(CHANGES, encode_u64(first), max(0, last - node.shipped)):
            payment = Change.FromString(raw).acceptance
            payment.version = 1
            stands = self.postgres.setdefault((payment.merchant, payment.checkout_id), payment)
            self.shippers.setdefault(payment.checkout_id, set()).add(number)
            self._tell(stands)
        node.shipped = last

    def _tell(self, payment: Payment) -> None:
        """The relay: every shard that shipped it and the ring's owner. A dead one hears it later."""
        for number in {self.ring.owner(payment.checkout_id).id, *self.shippers[payment.checkout_id]}:
            node = self.nodes[number]
            node.owed.append(Payment.FromString(payment.SerializeToString()))
            if node.up:
                self._deliver(node)

    def _deliver(self, node: Node) -> None:
        owed, node.owed = node.owed, []
        if owed:
            self.runner.run(node.shard.committer.commit(StatusBatch(tuple(map(snapshot_of, owed)))))


@pytest.mark.parametrize("seed", range(WORLDS))
def test_no_payment_is_denied_doubled_or_told_wrongly_whatever_happens_to_the_ring(
    seed: int, tmp_path: Path
) -> None:
    with asyncio.Runner() as runner:
        world = RingOfShards(tmp_path, Random(seed), runner)
        for _ in range(STEPS):
            world.step()
    assert {"post 202", "get 200"} <= world.counts.keys(), world.counts
