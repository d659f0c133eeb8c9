"""What must hold when all faults are healed and nothing is left to do: every promise, record by record."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from processor.storage.payments import payment_from
from tests.simulation.postgres.of_payments import shown_operations
from tests.simulation.postgres.tables import Row
from tests.simulation.watch import Broken
from tests.simulation.world import World
from tollgate.ids import payment_key
from tollgate.shard_layout import (
    CHANGES,
    META,
    META_ACKNOWLEDGED,
    META_LAST_SEQUENCE,
    META_PRUNED,
    PAYMENTS,
    decode_u64,
    encode_u64,
)
from tollgate.topics import CHANGES as CHANGES_TOPIC
from tollgate.topics import EVENTS, STATUS
from tollgate.v1.payment_pb2 import Payment

# What is due later than any retry waits for somebody: a payer, a window, a notification, a person.
_SOON_US: Final = 12_000_000
_PAID: Final = frozenset({"succeeded", "partially_refunded", "refunded"})


def unrest(world: World) -> str | None:
    """Why the world is not at rest yet."""
    tables, now_us = world.server.tables, world.server.process.now_us()
    if world.clients.busy:
        return f"{world.clients.busy} clients wait for an answer"
    for volume in world.volumes.values():
        meta = volume.disk.synced[META]
        last, acknowledged = decode_u64(meta[META_LAST_SEQUENCE]), decode_u64(meta[META_ACKNOWLEDGED])
        if last != acknowledged:
            return f"shard {volume.shard} has shipped {acknowledged} of {last}"
    for (topic, partition), log in world.broker.partitions.items():
        if topic == CHANGES_TOPIC:
            done = world.broker.committed.get((world.broker.group.name, partition), (0, 0))[0]
            if done < len(log):
                return f"{topic}/{partition} is taken in up to {done} of {len(log)}"
        elif topic == STATUS:
            group = f"status-{partition}-{world.volumes[partition].disk.synced[META][b'incarnation'].hex()}"
            done = world.broker.committed.get((group, partition), (0, 0))[0]
            if done < len(log):
                return f"{topic}/{partition} is applied up to {done} of {len(log)}"
    if tables.outbox or tables.resends:
        return f"{len(tables.outbox)} versions and {len(tables.resends)} snapshots are to be told"
    for key, operation in tables.operations.items():
        due = operation["claimable_at"]
        if due is not None and due < now_us + _SOON_US:
            return f"operation {'/'.join(key)} is due in {(due - now_us) / 1e6:.1f} s"
    if world.psp.witness.untold:
        return f"{len(world.psp.witness.untold)} webhooks are not taken"
    if world.psp.witness.book.processing:
        return "the PSP has not come to an outcome yet"
    for (_psp, event), row in tables.inbox.items():
        if row["due_at"] is not None:
            return f"webhook {event} waits"
    return None


def check_rest(world: World) -> None:
    """Raises Broken."""
    for broken in (
        *_accepted_payments(world),
        *_change_logs(world),
        *_effects(world),
        *_events(world),
        *_shards_agree(world),
        *_operations(world),
    ):
        raise broken


def _accepted_payments(world: World) -> Iterator[Broken]:
    """I1: what was told as accepted is in Postgres with the same content, or lost against another."""
    tables = world.server.tables
    for purchase in world.clients.purchases:
        row = tables.payments.get(purchase.key)
        if not purchase.told:
            continue
        if row is None:
            yield Broken("I1", f"{purchase.checkout_id} was accepted and is not in Postgres")
            continue
        lost = [conflict for key, conflict in tables.conflicts.items() if key[:2] == purchase.key]
        for content in purchase.told:
            same = (row["amount"], row["payment_method"]) == (content["amount"], content["payment_method"])
            if not same and not lost:
                yield Broken(
                    "I1", f"{purchase.checkout_id} was accepted with {content}, Postgres has {dict(row)}"
                )
        if all(row["amount"] != content["amount"] for content in purchase.contents):
            yield Broken("I1", f"{purchase.checkout_id} has an amount that nobody sent: {row['amount']}")


def _change_logs(world: World) -> Iterator[Broken]:
    for volume in world.volumes.values():
        meta, changes = volume.disk.synced[META], volume.disk.synced[CHANGES]
        last, pruned = decode_u64(meta[META_LAST_SEQUENCE]), decode_u64(meta[META_PRUNED])
        for sequence in range(pruned + 1, last + 1):
            value = changes.get(encode_u64(sequence))
            if value is None:
                yield Broken("I3", f"shard {volume.shard} has no change {sequence} of {last}")
            elif value not in world.broker.changes:
                yield Broken("I3", f"change {sequence} of shard {volume.shard} never came to Kafka")
        if len(changes) != last - pruned:
            yield Broken("I3", f"shard {volume.shard} has {len(changes)} changes in ({pruned}, {last}]")


def _effects(world: World) -> Iterator[Broken]:
    """I2 and the amounts: Postgres says what the PSP's own book says."""
    moved: dict[tuple[str, str], dict[str, int]] = {}
    for effect in world.psp.witness.effects:
        of_payment = moved.setdefault((effect.merchant, effect.checkout_id), {})
        of_payment[effect.type] = of_payment.get(effect.type, 0) + effect.amount
    parked = {key[:2] for key, row in world.server.tables.operations.items() if row["parked_reason"]}
    for key, row in world.server.tables.payments.items():
        effects, status = moved.pop(key, {}), row["status"]
        if key in parked:
            continue  # a person is asked, because it can't be known here
        about = f"{key[1]} is {status}, the PSP has {effects}"
        if bool(effects.get("charge") or effects.get("authorization")) != (
            status in _PAID or status == "authorized" or (status == "canceled" and "cancel" in effects)
        ):
            yield Broken("I2", about)
        captured = effects.get("charge", 0) + effects.get("capture", 0)
        if row["captured_amount"] != captured or row["refunded_amount"] != effects.get("refund", 0):
            yield Broken(
                "amounts", f"{about}; captured {row['captured_amount']}, {row['refunded_amount']} back"
            )
        if row["refunded_amount"] > row["captured_amount"] or row["captured_amount"] > row["amount"]:
            yield Broken("amounts", about)
    for key, effects in moved.items():
        yield Broken("I2", f"the PSP has {effects} for {key}, which Postgres does not know")


def _events(world: World) -> Iterator[Broken]:
    """Every version was told, first occurrences in order."""
    told: dict[bytes, list[int]] = {}
    for record in world.broker.records(EVENTS):
        version = int(dict(record.headers)["ce_version"])
        versions = told.setdefault(record.key, [])
        if version not in versions:
            versions.append(version)
    for (merchant, checkout_id), row in world.server.tables.payments.items():
        versions = told.get(payment_key(merchant, checkout_id).encode(), [])
        if versions != list(range(1, row["version"] + 1)):
            yield Broken("events", f"{checkout_id} is at version {row['version']}, told were {versions}")
    for payments in _histories(world).values():
        for before, after in pairwise(payments):
            if after.updated_at_us < before.updated_at_us or after.version != before.version + 1:
                yield Broken("I5", f"{after.checkout_id}: version {after.version} after {before.version}")


def _histories(world: World) -> dict[tuple[str, str], list[Payment]]:
    histories: dict[tuple[str, str], list[Payment]] = {}
    for _number, row in sorted(world.server.tables.published.items()):
        payment = Payment.FromString(row["snapshot"])
        histories.setdefault((payment.merchant, payment.checkout_id), []).append(payment)
    return histories


def _shards_agree(world: World) -> Iterator[Broken]:
    """I5: who shipped a payment has it as Postgres does. Its owner answers so, see `final_reads`."""
    tables = world.server.tables
    for key, row in tables.payments.items():
        payment = _whole(world, row)
        for shard in sorted(tables.shards_of.get(key, ())):
            stored = world.volumes[shard].disk.synced[PAYMENTS].get(payment_key(*key).encode())
            if stored is None:
                yield Broken("I5", f"shard {shard} does not have {key[1]}")
                continue
            found = Payment.FromString(stored)
            if found.version != payment.version or found.status != payment.status:
                yield Broken(
                    "I5",
                    f"{key[1]} is {found.status} v{found.version} on shard {shard}, "
                    f"{payment.status} v{payment.version} in Postgres",
                )
            elif (found.captured_amount, found.refunded_amount, list(found.operations)) != (
                payment.captured_amount,
                payment.refunded_amount,
                list(payment.operations),
            ):
                yield Broken("I5", f"{key[1]} has other amounts or operations on shard {shard}")


def check_reads(world: World) -> None:
    """Every client has polled once more: it was shown how the payment stands. Raises Broken."""
    for purchase in world.clients.purchases:
        row = world.server.tables.payments.get(purchase.key)
        if row is None and not purchase.is_known:
            continue
        stands = None if row is None else row["version"]
        if purchase.shown != stands:
            raise Broken(
                "I5", f"{purchase.checkout_id} is at version {stands}, its client was shown {purchase.shown}"
            )


def _whole(world: World, row: Row) -> Payment:
    from tests.simulation.postgres.tables import Transaction

    tx = Transaction(world.server.tables, 0, lambda: 0)
    whole = Row(row | {"shown_operations": shown_operations(tx, row)})
    return payment_from(whole)  # type: ignore[arg-type]


def _operations(world: World) -> Iterator[Broken]:
    """What was accepted is there; what the payment has come to the end of is not open."""
    tables = world.server.tables
    for purchase in world.clients.purchases:
        for key, operation in purchase.operations.items():
            if (*purchase.key, operation) not in tables.operations:
                yield Broken("I1", f"{key} of {purchase.checkout_id} was accepted and is not in Postgres")
    for key, row in tables.operations.items():
        if row["status"] == "pending" and row["claimable_at"] is None and not row["parked_reason"]:
            yield Broken("liveness", f"operation {'/'.join(key)} is open and nobody will take it up")
    if tables.anomalies:
        yield Broken(
            "anomaly",
            f"an honest PSP was found to contradict itself: {next(iter(tables.anomalies.values()))}",
        )
