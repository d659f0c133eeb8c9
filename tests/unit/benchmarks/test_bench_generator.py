"""The load generator against a server whose slowness is known: it must not look away while that stalls."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fill import ids
from benchmarks.measure import generator
from benchmarks.measure.generator import Load, Target, parse
from benchmarks.systems import builds
from tollgate.errors import OperationalError

STALL_S = 0.4
_BODY = b"{}"


@pytest.fixture(scope="session")
def loadgen() -> Path:
    if builds.c_compiler() is None:
        pytest.skip("there is no C compiler here")
    return builds.loadgen()


class Server:
    """Answers each request of its one connection at once, but stands still once for STALL_S.

    `answer` makes the whole answer from the request's number and head; None closes the connection.
    """

    def __init__(self, answer: Any, stall_at: int | None = None) -> None:
        self._answer = answer
        self._stall_at = stall_at
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.heads: list[bytes] = []
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, suppress(OSError):
                    self._converse(connection)

    def _converse(self, connection: socket.socket) -> None:
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
            head, end, rest = received.partition(b"\r\n\r\n")
            length = _content_length(head)
            if not end or len(rest) < length:
                continue
            received = rest[length:]
            self.heads.append(head)
            if len(self.heads) == self._stall_at:
                time.sleep(STALL_S)
            answer = self._answer(len(self.heads), head)
            if answer is None:
                return
            connection.sendall(answer)


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 0


def accepted(body: bytes = _BODY, status: bytes = b"202 Accepted") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def checkout_id(head: bytes) -> bytes:
    return next(line.split(b": ")[1] for line in head.split(b"\r\n") if line.startswith(b"X-PAYMENT"))


@contextmanager
def serving(answer: Any, stall_at: int | None = None) -> Iterator[tuple[Server, Target]]:
    with Server(answer, stall_at) as server:
        yield server, Target(server.address, "tg_sk_test", holds_ids=False)


def load(**changes: Any) -> Load:
    return replace(Load("post", connections=1, seconds=1.0, warm_up_s=0.0), **changes)


def test_an_open_loop_shows_a_stall_to_all_that_were_due_in_it(loadgen: Path) -> None:
    with serving(lambda *_: accepted(), stall_at=50) as (_, target):
        result = generator.run(loadgen, load(rate=200.0), target, seed=1)
    assert result.latency.count == 200
    # 80 of the 200 were due while nothing was answered, and waited for the rest of the stall.
    assert (result.latency.percentile_ns(90) or 0) > STALL_S * 1e9 / 4
    assert result.latency.max_ns >= STALL_S * 1e9
    assert result.waited >= 40


def test_the_generators_own_lag_is_not_the_servers_stall(loadgen: Path) -> None:
    with serving(lambda *_: accepted(), stall_at=50) as (_, target):
        result = generator.run(loadgen, load(rate=200.0), target, seed=1)
    assert result.lag.count == 200
    assert (result.lag.percentile_ns(99) or 0) < STALL_S * 1e9 / 2


def test_a_closed_loop_counts_the_stall_once_and_is_not_to_be_read_as_an_open_one(loadgen: Path) -> None:
    with serving(lambda *_: accepted(), stall_at=50) as (_, target):
        result = generator.run(loadgen, load(), target, seed=1)
    assert result.latency.max_ns >= STALL_S * 1e9
    assert (result.latency.percentile_ns(90) or 0) < STALL_S * 1e9 / 4


def test_what_is_never_answered_counts_with_the_time_it_waited(loadgen: Path) -> None:
    with serving(lambda number, _: accepted() if number < 20 else b"") as (_, target):
        process = subprocess.run(
            [
                *(str(loadgen), "--load", "post", "--to", target.address, "--any-body", "--rate", "100"),
                *("--seconds", "0.5", "--drain", "0.2", "--body", str(generator.PAYMENT)),
            ],
            capture_output=True,
            check=True,
            timeout=30,
        )
    result = parse(json.loads(process.stdout))
    assert (result.post.count, result.unanswered, result.unsent) == (19, 1, 30)
    assert result.other.max_ns > 0.4e9
    assert result.latency.count == 50


def test_each_request_carries_an_id_of_its_own_and_the_key(loadgen: Path) -> None:
    with serving(lambda *_: accepted()) as (server, target):
        result = generator.run(loadgen, load(seconds=0.2), target, seed=7)
        heads = list(server.heads)
    assert len({checkout_id(head) for head in heads}) == len(heads) >= result.started > 10
    assert all(b"Authorization: Bearer tg_sk_test" in head for head in heads)


def test_gets_ask_for_the_payments_that_posts_of_the_same_seed_made(loadgen: Path) -> None:
    made: set[bytes] = set()
    asked: set[bytes] = set()

    def answer(_number: int, head: bytes) -> bytes:
        if head.startswith(b"POST"):
            made.add(checkout_id(head))
            return accepted()
        asked.add(head.split(b" ")[1].removeprefix(b"/v1/payments/"))
        return accepted(status=b"200 OK")

    with serving(answer) as (_, target):
        generator.create(loadgen, target, seed=3, count=10, connections=1)
        result = generator.run(loadgen, load(kind="get", seconds=0.3), target, seed=3, ids=10)
    assert len(made) == 10
    assert asked == made
    assert result.get.count > 10


def test_a_mixed_load_polls_what_was_accepted_five_times_for_each_post(loadgen: Path) -> None:
    made: set[bytes] = set()

    def answer(_number: int, head: bytes) -> bytes:
        if head.startswith(b"POST"):
            made.add(checkout_id(head))
            return accepted()
        known = head.split(b" ")[1].removeprefix(b"/v1/payments/") in made
        return accepted(status=b"200 OK" if known else b"404 Not Found")

    with serving(answer) as (_, target):
        result = generator.run(loadgen, load(kind="mixed", seconds=0.3), target, seed=3)
    assert result.failed == 0
    assert result.get.count / result.post.count == pytest.approx(5, abs=0.5)


def test_an_answer_without_the_payments_id_is_a_wrong_answer(loadgen: Path) -> None:
    with serving(lambda *_: accepted()) as (server, _):
        target = Target(server.address, "tg_sk_test")
        result = generator.run(loadgen, load(seconds=0.1), target, seed=7)
    assert result.post.count == 0
    assert result.failures["mismatched"] == result.started > 0


@pytest.mark.parametrize(
    ("answer", "failure"),
    [(b"HTTP/1.1 202 Accepted\r\n\r\n", "malformed"), (accepted() + b"x", "malformed"), (None, "closed")],
)
def test_a_broken_answer_is_a_failure_and_in_the_account(
    loadgen: Path, answer: bytes | None, failure: str
) -> None:
    with serving(lambda number, _: answer if number % 2 else accepted()) as (_, target):
        result = generator.run(loadgen, load(seconds=0.3), target, seed=7)
    assert result.failures[failure] > 0
    assert result.other.count == result.failures[failure]
    assert result.post.count > 0


def test_other_statuses_are_counted_and_are_no_success(loadgen: Path) -> None:
    with serving(lambda *_: accepted(status=b"503 Service Unavailable")) as (_, target):
        result = generator.run(loadgen, load(seconds=0.1), target, seed=7)
    assert result.statuses == {"503": result.started}
    assert result.per_second == 0


def test_payments_that_were_not_all_created_are_no_ground_to_poll_on(loadgen: Path) -> None:
    with serving(lambda *_: accepted()) as (server, _):
        target = Target(server.address, "tg_sk_test")  # expects the payment's id, which is not there
        with pytest.raises(OperationalError, match="Of 5 payments"):
            generator.create(loadgen, target, seed=1, count=5, connections=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--to", "192.0.2.1:80"], "loopback"),
        (["--to", "localhost:80"], "loopback"),
        (["--connections", "100000"], "--connections takes"),
        (["--seconds", "1e9"], "--seconds takes"),
        (["--rate", "nan"], "--rate takes"),
        (["--count", "-1"], "--count takes"),
        (["--header", "A: b\r\nC: d"], "one line"),
    ],
)
def test_the_generator_refuses_what_is_unbounded_or_not_this_machine(
    loadgen: Path, arguments: list[str], said: str
) -> None:
    finished = subprocess.run([str(loadgen), *arguments], capture_output=True, text=True, timeout=10)
    assert finished.returncode == 2
    assert said in finished.stderr


def test_what_the_loader_fills_in_is_what_the_generator_asks_for(loadgen: Path) -> None:
    with serving(lambda *_: accepted()) as (server, target):
        generator.create(loadgen, target, seed=2**63 + 5, count=50, connections=1)
    sent = [checkout_id(head).decode() for head in server.heads]
    assert sent == [ids.checkout_id(2**63 + 5, index) for index in range(50)]


def test_a_result_that_lost_a_request_is_refused() -> None:
    empty = {"count": 0, "max_ns": 0, "buckets": []}
    document = dict.fromkeys(("completed", "measured_ns", "busy_ns", "cpu_s", "waited"), 0)
    document |= dict.fromkeys(("unsent", "unanswered", "reconnects"), 0)
    with pytest.raises(ValueError, match="1 requests were due and 0 are accounted for"):
        parse(
            {
                **document,
                "started": 1,
                "statuses": {},
                "failures": {},
                **dict.fromkeys(("post", "get", "other", "lag"), empty),
            }
        )
