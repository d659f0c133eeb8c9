"""What Kafka holds: the events and statuses of each payment, and the acceptances among the changes.

The changes themselves are compared with the shards' logs as `tollgate cdc verify` does it (I3, I4); what
passes there is taken down on the way, so that the topic is read once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import orjson
from google.protobuf.message import DecodeError

from tollgate.cli.proof.recorder import Recorder
from tollgate.cli.proof.states import state_of_document, state_of_payment
from tollgate.cli.proof.testimony import Accepted, Event, Kind, Snapshot
from tollgate.clock import SystemClock
from tollgate.errors import OperationalError
from tollgate.kafka_group import outside_of
from tollgate.topics import CHANGES, DLQ, EVENTS, INTAKE_GROUP, STATUS
from tollgate.v1.change_pb2 import Change
from tollgate.v1.shard_pb2 import StatusUpdate

if TYPE_CHECKING:
    from cdc.change_topic import ChangeTopic, Extent
    from cdc.comparison import TopicFloor, TopicRecord

_ASK_S: Final = 10.0


def taken_by_intake(bootstrap: str, partitions: Sequence[int]) -> dict[int, int]:
    """The offset up to which intake has taken in each partition. Raises OperationalError."""
    from confluent_kafka import KafkaException, TopicPartition

    with outside_of(INTAKE_GROUP, bootstrap) as consumer:
        places = [TopicPartition(CHANGES, number) for number in partitions]
        try:
            committed = consumer.committed(places, timeout=_ASK_S)
        except KafkaException as error:
            raise OperationalError(
                f"Kafka at {bootstrap} does not say how far intake is ({error.args[0].str()}). Try again."
            ) from error
    return {place.partition: max(0, place.offset) for place in committed}


class AttendedChanges:
    """payments.changes for `cdc.verification`, with every record of the first reading taken down."""

    def __init__(self, topic: ChangeTopic, taken: Mapping[int, int], recorder: Recorder) -> None:
        self._topic = topic
        self._taken = taken
        self._recorder = recorder
        self._is_first = True

    def extents(self) -> dict[int, Extent]:
        return self._topic.extents()

    def floors(self, extents: Mapping[int, Extent]) -> dict[int, TopicFloor]:
        return self._topic.floors(extents)

    def read(
        self, extents: Mapping[int, Extent], begin: Mapping[int, int]
    ) -> Iterator[Sequence[TopicRecord]]:
        is_first, self._is_first = self._is_first, False
        for batch in self._topic.read(extents, begin):
            if is_first:
                for record in batch:
                    self._take_down(record)
            yield batch

    def _take_down(self, record: TopicRecord) -> None:
        place = f"{record.partition}/{record.offset}"
        leaks = self._recorder.leaks
        try:
            change = Change.FromString(record.value)
        except DecodeError:
            self._recorder.unreadable(f"{CHANGES} {place}", "not a change")
            return
        if not change.HasField("acceptance"):
            self._recorder.leaked(leaks.in_text(record.value), CHANGES, place)
            return
        self._recorder.leaked(leaks.in_payment(record.value, change.acceptance), CHANGES, place)
        state = state_of_payment(change.acceptance, change.committed_at_us)
        is_taken = record.offset < self._taken.get(record.partition, 0)
        self._recorder.add(Kind.ACCEPTED, change.key, Accepted(place, change.shard, is_taken, state))


def read_events(bootstrap: str, recorder: Recorder) -> int:
    """Returns from when on nothing was lost to retention: 0 when nothing was. Raises OperationalError."""

    def take_down(record: TopicRecord, place: str) -> None:
        headers = dict(record.headers)
        recorder.leaked(recorder.leaks.in_text(record.value), EVENTS, place)
        try:
            state = state_of_document(orjson.loads(record.value))
            version = int(headers["ce_version"])
        except (KeyError, ValueError, TypeError):
            recorder.unreadable(f"{EVENTS} {place}", "not an event of a payment")
            return
        event = Event(place, headers.get("ce_type", b"").decode(), version, state)
        recorder.add(Kind.EVENT, record.key.decode(), event)

    return _read(bootstrap, EVENTS, take_down, recorder)


def read_statuses(bootstrap: str, recorder: Recorder) -> int:
    """Like `read_events`."""

    def take_down(record: TopicRecord, place: str) -> None:
        try:
            update = StatusUpdate.FromString(record.value)
        except DecodeError:
            recorder.unreadable(f"{STATUS} {place}", "not a status update")
            return
        payment = update.payment
        recorder.leaked(recorder.leaks.in_payment(record.value, payment), STATUS, place)
        snapshot = Snapshot(place, record.partition, update.published_at_us, state_of_payment(payment))
        recorder.add(Kind.SNAPSHOT, record.key.decode(), snapshot)

    return _read(bootstrap, STATUS, take_down, recorder)


def read_dead_letters(bootstrap: str, is_open: frozenset[tuple[str, int, int]], recorder: Recorder) -> None:
    """Those of which Postgres says that nobody has taken them in yet, by their origin. Raises
    OperationalError.
    """

    def take_down(record: TopicRecord, place: str) -> None:
        headers = {name: value.decode(errors="replace") for name, value in record.headers}
        recorder.leaked(recorder.leaks.in_text(record.value), DLQ, place)
        try:
            origin = (
                headers["origin_topic"],
                int(headers["origin_partition"]),
                int(headers["origin_offset"]),
            )
        except (KeyError, ValueError):
            recorder.unreadable(f"{DLQ} {place}", "its headers do not say where it comes from")
            return
        if origin in is_open:
            error = f"{headers.get('error', 'set aside')} (from {origin[0]} {origin[1]}/{origin[2]})"
            recorder.add(Kind.DEAD_LETTER, record.key.decode(errors="replace"), (error,))

    _read(bootstrap, DLQ, take_down, recorder)


def _read(
    bootstrap: str, name: str, take_down: Callable[[TopicRecord, str], None], recorder: Recorder
) -> int:
    from cdc.change_topic import KafkaChangeTopic

    topic = KafkaChangeTopic(bootstrap, name)
    extents = topic.extents()
    floors = topic.floors(extents)
    total = sum(extent.high - extent.low for extent in extents.values())
    read = 0
    for batch in topic.read(extents, {number: extent.low for number, extent in extents.items()}):
        for record in batch:
            take_down(record, f"{record.partition}/{record.offset}")
        read += len(batch)
        recorder.progress(name, read, total)
    now_us = SystemClock().now_us()  # an emptied partition says nothing of any time before
    return max(
        (now_us if floor.oldest_us is None else floor.oldest_us for floor in floors.values() if floor.is_cut),
        default=0,
    )
