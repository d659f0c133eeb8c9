"""A bare idempotent producer with a delivery callback for each record, as a process of its own.

`python -m benchmarks.cdc.bare --bootstrap … --data-dir … --records N`: the keys and values of the shard's own
first changes, again and again. One thread, which also polls; no headers, no order to prove, nothing to keep.
Prints what the time from its first delivery to its last came to, as JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaError, Message, Producer

from cdc.shard_log import ShardLog
from tollgate.topics import CHANGES
from tollgate.v1.change_pb2 import Change

CONFIG: Final = {
    "enable.idempotence": True,
    "acks": "all",
    "linger.ms": 5,
    "partitioner": "murmur2_random",
    "log_level": 2,
}
_DISTINCT: Final = 100_000  # what a million are made of fits the memory
_POLL_EVERY: Final = 100
_FULL_S: Final = 0.01


class Deliveries:
    def __init__(self) -> None:
        self.count = 0
        self.first_at = self.last_at = 0.0
        self.first_cpu_s = 0.0

    def one(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            raise SystemExit(f"bare: {error.str()}")
        if self.count == 0:
            self.first_at, self.first_cpu_s = time.perf_counter(), time.process_time()
        self.count += 1
        self.last_at = time.perf_counter()


def changes(data_dir: Path, count: int) -> list[tuple[bytes, bytes]]:
    log = ShardLog(data_dir)
    try:
        return [(Change.FromString(value).key.encode(), value) for _, value in log.rows(0, count)]
    finally:
        log.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--records", type=int, required=True)
    arguments = parser.parse_args()
    known = changes(arguments.data_dir, min(arguments.records, _DISTINCT))
    producer = Producer({"bootstrap.servers": arguments.bootstrap, **CONFIG})
    producer.list_topics(CHANGES, timeout=10)
    deliveries = Deliveries()
    for index, (key, value) in enumerate(islice(cycle(known), arguments.records)):
        while True:
            try:
                producer.produce(CHANGES, value, key, on_delivery=deliveries.one)
                break
            except BufferError:
                producer.poll(_FULL_S)
        if index % _POLL_EVERY == 0:
            producer.poll(0)
    while deliveries.count < arguments.records:
        producer.poll(0.1)
    seconds = deliveries.last_at - deliveries.first_at
    cpu_s = time.process_time() - deliveries.first_cpu_s
    print(json.dumps({"records": deliveries.count - 1, "seconds": seconds, "cpu_s": cpu_s}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
