"""I5: one decider. Versions only rise, one by one, along the status table; all are told the same. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Final

from tollgate.cli.proof.rule import Rule
from tollgate.cli.proof.testimony import Event, Look, Snapshot, State, Witnessed
from tollgate.client_log import ClientAnswer
from tollgate.clock import rfc3339
from tollgate.status import BY_NAME, NAME, TERMINAL, TRANSITIONS, StatusValue, is_legal

_TERMINAL_NAMES: Final = frozenset(NAME[status] for status in TERMINAL)
_ACCEPTED: Final = ("pending", 0, 0)  # how a payment stands at version 0


def _went_back(testimony: Witnessed, _look: Look) -> Iterator[str]:
    """By what was told before it was asked: answers that cross each other may come in any order."""
    for before, after in _consecutive(testimony.views):
        if after.answer["version"] < before.answer["version"]:
            yield f"{_told(after)} after {_told(before)}"


def _left_terminal(testimony: Witnessed, _look: Look) -> Iterator[str]:
    for before, after in _consecutive([one for one in testimony.views if "status" in one.answer]):
        was, then = before.answer["status"], after.answer["status"]
        if was in _TERMINAL_NAMES and then != was:
            yield f"{_told(after)} after {_told(before)}"


def _unreachable_for_a_client(testimony: Witnessed, _look: Look) -> Iterator[str]:
    for before, after in _consecutive([one for one in testimony.views if "status" in one.answer]):
        was, then = before.answer["status"], after.answer["status"]
        if after.answer["version"] < before.answer["version"] or was in _TERMINAL_NAMES:
            continue  # another rule's
        if was != then and then not in _reachable(was):
            yield f"{_told(after)} after {_told(before)}"


def _consecutive(views: Sequence[ClientAnswer]) -> Iterator[tuple[ClientAnswer, ClientAnswer]]:
    """Each view with the newest that had been told before it was asked for; `views` are in the order told."""
    newest: ClientAnswer | None = None
    told = 0
    for view in sorted(views, key=lambda one: one.sent_us):
        while told < len(views) and views[told].at_us <= view.sent_us:
            if newest is None or views[told].answer["version"] >= newest.answer["version"]:
                newest = views[told]
            told += 1
        if newest is not None:
            yield newest, view


@cache
def _reachable(status: str) -> frozenset[str]:
    """Over any number of steps."""
    found: set[StatusValue] = set()
    todo = [BY_NAME[status]]
    while todo:
        for following in TRANSITIONS[todo.pop()] - found:
            found.add(following)
            todo.append(following)
    return frozenset(NAME[status] for status in found)


def _told(view: ClientAnswer) -> str:
    status = view.answer.get("status", "not modified")
    return f"version {view.answer['version']} ({status}) at {rfc3339(view.at_us)}"


def _told_otherwise(testimony: Witnessed, look: Look) -> Iterator[str]:
    """What a client was told of a version is what the version is."""
    standing = {one.told_version: one.state.standing for one in testimony.events}
    standing[0] = _ACCEPTED
    row = testimony.row
    if row is not None:
        standing.setdefault(row.state.version, row.state.standing)
    for view in testimony.views:
        version = view.answer["version"]
        told = tuple(view.answer.get(name) for name in ("status", "captured_amount", "refunded_amount"))
        if version in standing and view.status != 304 and told != standing[version]:
            yield f"{_told(view)}, {told[1]} captured, {told[2]} refunded: it is {standing[version]}"
        if row is not None and version > row.state.version and look.is_settled(view.at_us):
            yield f"{_told(view)}, Postgres is at version {row.state.version}"


def _out_of_order(testimony: Witnessed, look: Look) -> Iterator[str]:
    """First occurrences rise one by one; repeats may come anywhere."""
    newest = 0
    seen: set[int] = set()
    for event in testimony.events:
        version = event.told_version
        if version in seen:
            continue
        if version < newest:
            yield f"event of version {version} at {event.place} comes first after version {newest}"
        elif version > newest + 1 and (newest or not _may_have_expired(testimony, look)):
            yield f"event of version {version} at {event.place} follows version {newest}"
        seen.add(version)
        newest = max(newest, version)


def _may_have_expired(testimony: Witnessed, look: Look) -> bool:
    return testimony.row is None or testimony.row.created_us <= look.events_from_us


def _illegal_step(testimony: Witnessed, _look: Look) -> Iterator[str]:
    by_version = {one.told_version: one for one in testimony.events}
    for before, after in pairwise(sorted(by_version)):
        was, then = by_version[before].state.status, by_version[after].state.status
        if after == before + 1 and was != then and not is_legal(BY_NAME[was], BY_NAME[then]):
            yield f"{was} (version {before}) became {then} (version {after})"
    if 1 in by_version and by_version[1].state.status != "pending":
        yield f"version 1 is {by_version[1].state.status}"


def _rewritten(testimony: Witnessed, _look: Look) -> Iterator[str]:
    """All who tell of a version tell the same, and an event holds the version that its header names."""
    first: dict[int, tuple[str, tuple[str, int, int]]] = {}
    for record in testimony.published:
        version, standing = record.state.version, record.state.standing
        place, known = first.setdefault(version, (_place(record), standing))
        if known != standing:
            yield f"version {version} is {known} at {place} and {standing} at {_place(record)}"
    for event in testimony.events:
        if event.told_version != event.state.version:
            yield f"{_place(event)} is named version {event.told_version} and holds {event.state.version}"


def _place(record: Event | Snapshot) -> str:
    return f"{'payments.events' if isinstance(record, Event) else 'payments.status'} {record.place}"


def _statuses_out_of_order(testimony: Witnessed, _look: Look) -> Iterator[str]:
    """By when they were sent: what a relay that lost its slices had under way may come after what the next
    one told, and no consumer takes it.
    """
    seen: defaultdict[int, dict[int, int]] = defaultdict(dict)
    for snapshot in testimony.snapshots:
        sent, version = seen[snapshot.shard], snapshot.state.version
        newest = max(sent, default=0)
        if version not in sent and version < newest and snapshot.sent_us >= sent[newest]:
            yield f"version {version} at {_place(snapshot)} was first sent after {newest}"
        sent.setdefault(version, snapshot.sent_us)


def _last_event(testimony: Witnessed, look: Look) -> Iterator[str]:
    row = testimony.row
    if row is None or row.state.at_us <= look.events_from_us:
        return
    last = max(testimony.events, key=lambda one: one.state.version, default=None)
    yield from _disagreement(testimony, "payments.events ends at", last.state if last else None)


def _last_status(testimony: Witnessed, look: Look) -> Iterator[str]:
    row = testimony.row
    if row is None or row.state.at_us <= look.statuses_from_us:
        return
    for shard in sorted(testimony.shipped_by & look.shards):
        told = [one for one in testimony.snapshots if one.shard == shard]
        last = max(told, key=lambda one: one.state.version, default=None)
        yield from _disagreement(
            testimony, f"payments.status of shard {shard} ends at", last.state if last else None
        )


def _shard_differs(testimony: Witnessed, look: Look) -> Iterator[str]:
    """Those that shipped it are told of each version; what others keep for a while may be older."""
    for stored in testimony.stored:
        if stored.shard in testimony.shipped_by & look.shards:
            yield from _disagreement(testimony, f"shard {stored.shard} is at", stored.state)


def _disagreement(testimony: Witnessed, where: str, state: State | None) -> Iterator[str]:
    row = testimony.row
    if row is None:
        return
    known = f"Postgres at {row.state.version} {row.state.standing}"
    if state is None:
        yield f"{where} nothing, {known}"
    elif (state.version, state.standing) != (row.state.version, row.state.standing):
        yield f"{where} version {state.version} {state.standing}, {known}"


def _ahead(testimony: Witnessed, look: Look) -> Iterator[str]:
    """Nobody knows a version that Postgres has not decided."""
    row = testimony.row
    if row is None or not look.is_settled(testimony.changed_us):
        return
    for stored in testimony.stored:
        if stored.state.version > row.state.version:
            ahead = f"shard {stored.shard} is at version {stored.state.version}"
            yield f"{ahead}, Postgres at {row.state.version}"
    for record in testimony.published:
        if record.state.version > row.state.version:
            yield f"version {record.state.version} at {_place(record)}, Postgres at {row.state.version}"


def _has_views(testimony: Witnessed, _look: Look) -> bool:
    return len(testimony.views) > 1


RULES = (
    Rule("I5 version went back", "a client never sees an older version than before", _has_views, _went_back),
    Rule("I5 left its end", "a terminal status stays, for every client", _has_views, _left_terminal),
    Rule(
        "I5 no way there",
        "what a client sees next can follow what it saw",
        _has_views,
        _unreachable_for_a_client,
    ),
    Rule(
        "I5 told otherwise",
        "a client is told of a version what it is",
        lambda testimony, _look: bool(testimony.views),
        _told_otherwise,
    ),
    Rule(
        "I5 event order",
        "events of a payment come version by version",
        lambda testimony, _look: bool(testimony.events),
        _out_of_order,
    ),
    Rule(
        "I5 illegal step",
        "each version's status may follow the one before",
        lambda testimony, _look: bool(testimony.events),
        _illegal_step,
    ),
    Rule(
        "I5 rewritten",
        "a version says the same wherever it is told",
        lambda testimony, _look: len(testimony.events) + len(testimony.snapshots) > 0,
        _rewritten,
    ),
    Rule(
        "I5 status order",
        "versions are sent to each shard in order",
        lambda testimony, _look: bool(testimony.snapshots),
        _statuses_out_of_order,
    ),
    Rule("I5 last event", "the last event is how the payment stands", Witnessed.is_at_rest, _last_event),
    Rule("I5 last status", "the last status is how the payment stands", Witnessed.is_at_rest, _last_status),
    Rule(
        "I5 shard differs",
        "a shard says what Postgres says",
        lambda testimony, look: testimony.is_at_rest(look) and bool(testimony.stored),
        _shard_differs,
    ),
    Rule(
        "I5 ahead",
        "nobody knows a version that Postgres has not",
        lambda testimony, _look: testimony.row is not None,
        _ahead,
    ),
)
