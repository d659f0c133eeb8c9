"""I1: what was accepted is not lost, is not denied, and does not lie about. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tollgate.cli.proof.contents import content_fingerprint
from tollgate.cli.proof.rule import Rule
from tollgate.cli.proof.testimony import Look, Witnessed, is_payment_post
from tollgate.client_log import ClientAnswer
from tollgate.clock import rfc3339

_NOT_FOUND = 404
_OTHER_CONTENT = "idempotency_key_reused"


def _lost(testimony: Witnessed, _look: Look) -> Iterator[str]:
    """Neither in Postgres nor on its way there."""
    if testimony.row is None and not _is_waiting(testimony):
        first = testimony.acceptances[0]
        yield f"{first.status} told at {rfc3339(first.at_us)}, and Postgres does not know it"


def _is_waiting(testimony: Witnessed) -> bool:
    """In a record that intake has not come to, or in a shard's store that has not shipped it."""
    if testimony.accepted:
        return not any(record.is_taken for record in testimony.accepted) or bool(testimony.dead_letters)
    return bool(testimony.stored)


def _skipped(testimony: Witnessed, _look: Look) -> Iterator[str]:
    passed = [record for record in testimony.accepted if record.is_taken]
    if testimony.row is None and passed and not testimony.dead_letters:
        yield f"its change at {passed[0].place} was passed by intake, and Postgres does not know it"


def _not_taken_in(testimony: Witnessed, look: Look) -> Iterator[str]:
    if testimony.row is not None or not _is_waiting(testimony):
        return
    since_us = min(one.state.at_us for one in testimony.arrivals)
    if look.is_overdue(since_us) and not testimony.dead_letters:
        where = "in Kafka" if testimony.accepted else "in its shard's store"
        yield f"accepted at {rfc3339(since_us)}, and still only {where}"


def _forgotten(testimony: Witnessed, look: Look) -> Iterator[str]:
    """Every shard that shipped it was asked, and none has it."""
    row = testimony.row
    if row is not None and not testimony.stored and row.state.at_us > look.began_us - look.store_us:
        yield f"{row.state.status} in Postgres, and no shard has it"


def _operation_lost(testimony: Witnessed, _look: Look) -> Iterator[str]:
    known = {operation.id for operation in testimony.operations}
    for told in _told_operations(testimony):
        if told.answer["id"] not in known:
            yield f"{told.answer['type']} {told.answer['id']} was told ({told.status}), Postgres has none"


def _told_operations(testimony: Witnessed) -> list[ClientAnswer]:
    return [one for one in testimony.told if "type" in one.answer and one.status in (200, 202)]


def _false_404(testimony: Witnessed, _look: Look) -> Iterator[str]:
    known_us = min(one.at_us for one in testimony.acceptances)
    operations = {one.answer["id"]: one.at_us for one in reversed(_told_operations(testimony))}
    for told in testimony.told:
        if told.status != _NOT_FOUND:
            continue
        _, separator, operation = told.path.rpartition("/operations/")
        since_us = operations.get(operation) if separator else known_us
        if since_us is not None and told.sent_us > since_us:
            said = f"{told.method} {told.path} at {rfc3339(told.at_us)}: 404"
            yield f"{said}, told of at {rfc3339(since_us)}"


def _replay_refused(testimony: Witnessed, _look: Look) -> Iterator[str]:
    accepted = {_fingerprint_of(one) for one in testimony.acceptances}
    since_us = min(one.at_us for one in testimony.acceptances)
    for told in testimony.told:
        if (
            is_payment_post(told)
            and told.answer.get("code") == _OTHER_CONTENT
            and told.sent_us > since_us
            and _fingerprint_of(told) in accepted - {b""}
        ):
            yield f"the same content was accepted before, and refused at {rfc3339(told.at_us)}"


def _fingerprint_of(told: ClientAnswer) -> bytes:
    return content_fingerprint(told.request) if told.request else b""


def _one_key_two_operations(testimony: Witnessed, _look: Look) -> Iterator[str]:
    by_key: defaultdict[str, set[str]] = defaultdict(set)
    for told in _told_operations(testimony):
        if told.idempotency_key:
            by_key[told.idempotency_key].add(told.answer["id"])
    for key, ids in by_key.items():
        if len(ids) > 1:
            yield f"Idempotency-Key {key} was answered with {', '.join(sorted(ids))}"


RULES = (
    Rule(
        "I1 lost",
        "a payment that was accepted is in Postgres, or on its way there",
        lambda testimony, _look: bool(testimony.acceptances),
        _lost,
    ),
    Rule(
        "I1 skipped",
        "a change that intake has gone past is in Postgres",
        lambda testimony, _look: any(record.is_taken for record in testimony.accepted),
        _skipped,
    ),
    Rule(
        "I1 not taken in",
        "what is accepted is soon in Postgres",
        lambda testimony, _look: bool(testimony.accepted or testimony.stored),
        _not_taken_in,
    ),
    Rule(
        "I1 forgotten",
        "a shard that shipped a payment knows it",
        lambda testimony, look: (
            testimony.is_at_rest(look) and bool(testimony.shipped_by) and testimony.shipped_by <= look.shards
        ),
        _forgotten,
    ),
    Rule(
        "I1 lost operation",
        "an operation that was told is in Postgres",
        lambda testimony, _look: bool(_told_operations(testimony)),
        _operation_lost,
    ),
    Rule(
        "I1 false 404",
        "what was accepted is never said not to exist",
        lambda testimony, _look: bool(testimony.acceptances),
        _false_404,
    ),
    Rule(
        "I1 refused replay",
        "the same content under the same id is never another",
        lambda testimony, _look: bool(testimony.acceptances),
        _replay_refused,
    ),
    Rule(
        "I2 two operations",
        "one Idempotency-Key of a payment is one operation",
        lambda testimony, _look: bool(_told_operations(testimony)),
        _one_key_two_operations,
    ),
)
