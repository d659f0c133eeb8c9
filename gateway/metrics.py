"""What a shard counts. Labels are routes, methods and statuses of our own: nothing a client sent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class _Answers(Collector):
    """Counts on the event loop alone, so it needs no lock: a Counter costs ten times as much an answer."""

    def __init__(self) -> None:
        self.counts: defaultdict[tuple[str, int], int] = defaultdict(int)

    def collect(self) -> Iterator[Metric]:
        answers = CounterMetricFamily(
            "tollgate_http_requests", "Answers by route and status", labels=["route", "status"]
        )
        for (route, status), count in self.counts.items():
            answers.add_metric([route, str(status)], count)
        yield answers


class Metrics:
    """One registry a shard, so that several can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._answers = _Answers()
        self.registry.register(self._answers)
        self._refusals = Counter(
            "tollgate_refusals",
            "Requests refused before they were looked at, by the bound that was met",
            ["reason"],
            registry=self.registry,
        )
        self._refused: dict[str, Counter] = {}
        self._batch = Histogram(
            "tollgate_commit_batch_entries", "Entries a commit", registry=self.registry, buckets=_COUNTS
        )
        self._commit = Histogram(
            "tollgate_commit_seconds",
            "From draining the ring to the durable watermark",
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._fsync = Histogram(
            "tollgate_fsync_seconds",
            "From the written batch to the durable watermark",
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.status_updates = Counter(
            "tollgate_status_updates", "Snapshots received, by result", ["result"], registry=self.registry
        )
        self.look_ups = Counter(
            "tollgate_look_ups",
            "Payments asked for elsewhere: to accept, to deny or to refresh them; and what it came to",
            ["question", "outcome"],
            registry=self.registry,
        )
        self.asks = Counter(
            "tollgate_look_up_asks",
            "Answers of the Ledger and of other shards in look-ups",
            ["whom", "answer"],
            registry=self.registry,
        )
        self.ledger_calls = Counter(
            "tollgate_ledger_calls",
            "What clients made this shard ask of the Ledger, and what it came to",
            ["call", "outcome"],
            registry=self.registry,
        )
        self.replication_timeouts = Counter(
            "tollgate_replication_timeouts",
            "Requests whose change Kafka did not confirm in time",
            registry=self.registry,
        )
        self._replication = Histogram(
            "tollgate_replication_seconds",
            "From durable here to confirmed by Kafka, of requests that waited for it",
            registry=self.registry,
            buckets=_SECONDS,
        )

    def refused(self, reason: str) -> None:
        """`reason` is the bound that was met: turn, connections, held_bytes, key_rate."""
        refused = self._refused.get(reason)
        if refused is None:
            refused = self._refused[reason] = self._refusals.labels(reason=reason)
        refused.inc()

    def answered(self, route: str, status: int) -> None:
        self._answers.counts[route, status] += 1

    def committed(self, entries: int, commit_s: float, fsync_s: float) -> None:
        self._batch.observe(entries)
        self._commit.observe(commit_s)
        self._fsync.observe(fsync_s)

    def replicated(self, seconds: float) -> None:
        self._replication.observe(seconds)

    def watch(self, name: str, description: str, read: Callable[[], float]) -> None:
        """A gauge that is read when it is scraped."""
        Gauge(name, description, registry=self.registry).set_function(read)

    def render(self) -> bytes:
        return generate_latest(self.registry)
