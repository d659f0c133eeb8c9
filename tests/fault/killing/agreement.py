"""Whether Kafka holds what a shard's log says, record by record, as both grow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class KafkaRecord(NamedTuple):
    partition: int
    epoch: int
    sequence: int
    value: bytes


@dataclass
class Agreement:
    """Keeps, between two looks, only how far each partition has come."""

    repeats: int = 0
    checked: int = 0
    _newest: dict[int, int] = field(default_factory=dict)  # partition → sequence of its last first occurrence

    def problems(self, log: Mapping[int, bytes], records: Iterable[KafkaRecord]) -> list[str]:
        """What is wrong with the records that came since the last look, beside the log's new changes."""
        found: list[str] = []
        seen: set[int] = set()
        for record in records:
            if record.sequence <= self.checked or record.sequence in seen:
                self.repeats += 1
                continue
            seen.add(record.sequence)
            if log.get(record.sequence) != record.value:
                found.append(f"change {record.sequence} of epoch {record.epoch} is another than in the log")
            if record.sequence < self._newest.get(record.partition, 0):
                found.append(f"change {record.sequence} comes late in partition {record.partition}")
            self._newest[record.partition] = record.sequence
        found += [f"change {sequence} is missing" for sequence in log if sequence not in seen]
        self.checked = max(self.checked, *log, 0)
        return found
