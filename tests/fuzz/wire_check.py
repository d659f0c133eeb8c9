"""Sends a stream and holds what comes back against what was sent. Raises AssertionError.

Held for every answer: it is well-formed and described; no 5xx but the specified 503; a success is for a
request that deserves it; as long as nothing was broken, the answer is the one and only right one. For every
connection: each request is answered, unless the last answer was a refusal that announced the end.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from tests.fixtures.described import BODILESS, Described
from tests.fuzz import oracle
from tests.fuzz.wire_messages import AUTHORIZATION, Stream
from tests.fuzz.wire_reading import End, Read, read

PSPS: Final = frozenset({"simulator"})
_WAIT_S: Final = 30.0  # beyond every time-out of the servers'
_ANSWERS_MAX: Final = 100  # a stream holds a handful of requests
_BODY_BYTES_MAX: Final = 65_536
_REFUSED: Final = frozenset({400, 401, 404, 405, 408, 409, 412, 413, 414, 415, 422, 428, 431})
_OPERATION: Final = re.compile("/v1/payments/[^/]+/(capture|cancel|refunds|operations/[^/]+)")
# HTTP/0.9: nginx answers it as it was then, without a head.
_SIMPLE_REQUEST: Final = re.compile(rb"\s*[A-Z-]+ +[^ ]+ *\r?\n")
_SERVICE: Final = {"/livez", "/readyz", "/openapi.json", "/docs", "/metrics"}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def announces_the_end(self) -> bool:
        return self.headers.get("connection", "").lower() == "close"


@dataclass
class Conversation:
    """What was accepted on one connection, by id. No other connection uses these ids."""

    accepted: dict[str, bytes] = field(default_factory=dict)

    def deserved(self, request: Read) -> set[int]:
        """The statuses that are right for a request that is well-formed HTTP."""
        path, query = request.path, request.target.partition("?")[2]
        if path == "/v1/payments" and request.method == "POST":
            return self._post(request)
        found = re.fullmatch("/v1/payments/([^/]*)", path)
        if found and request.method in ("GET", "HEAD"):
            return self._get(request, found[1], query)
        if found and request.method == "OPTIONS":
            return {204}
        if path == "/v1/payments" and request.method in ("GET", "HEAD"):
            return {401} if request.all("authorization") != [AUTHORIZATION] else {400} if query else {200}
        if _OPERATION.fullmatch(path) or (found and request.method == "PATCH"):
            return set(_REFUSED)  # nothing that is accepted here has reached a Ledger
        if path in _SERVICE:
            return {200, 304} if request.method in ("GET", "HEAD") else {405}
        return {404, 405}

    def _post(self, request: Read) -> set[int]:
        if request.all("authorization") != [AUTHORIZATION]:
            return {401}
        types = [value.replace(" ", "").lower() for value in request.all("content-type")]
        if types not in (["application/json"], ["application/json;charset=utf-8"]):
            return {415}
        if len(request.body) > _BODY_BYTES_MAX:
            return {413}
        named = request.all("x-payment-checkout-id")
        if len(named) != 1:
            return {400}
        verdict = oracle.judge(request.body, named[0], PSPS)
        if not verdict.is_taken:
            return {400}
        known = self.accepted.get(named[0])
        if known is None:
            return {202}
        return {200} if known == oracle.fingerprint(verdict.values) else {422}

    def learn(self, request: Read) -> None:
        """That it was answered 202."""
        values = oracle.judge(request.body, request.all("x-payment-checkout-id")[0], PSPS).values
        self.accepted[request.all("x-payment-checkout-id")[0]] = oracle.fingerprint(values)

    def _get(self, request: Read, checkout_id: str, query: str) -> set[int]:
        if query:
            return {400, 401}
        if request.all("authorization") != [AUTHORIZATION]:
            return {401}
        if any(named != checkout_id for named in request.all("x-payment-checkout-id")):
            return {400}
        if checkout_id not in self.accepted:
            return {404}
        conditions = request.all("if-none-match")
        return {304} if conditions == ['"0"'] else {200, 304} if conditions else {200}


def judge(stream: Stream, answers: list[Answer], ended: bool, described: Described) -> None:
    requests, end, rest = read(stream.raw)
    last = next((n for n, request in enumerate(requests) if request.is_last), None)
    if last is not None:
        requests, end = requests[: last + 1], End.COMPLETE
    conversation = Conversation()
    for number, answer in enumerate(answers):
        request = requests[number] if number < len(requests) else None
        _check_form(answer, request, described)
        if request is None:
            may_be_told = answer.status in _REFUSED | {503} or _SIMPLE_REQUEST.match(rest)
            assert may_be_told, f"answer {number} is a success for no request"
            assert end is not End.COMPLETE, f"answer {number} is one too many"
            continue
        deserved = conversation.deserved(request)
        may_refuse = {503} if number < stream.sound else _REFUSED | {503}
        assert answer.status in deserved | may_refuse, f"answer {number}: {answer.status}, not {deserved}"
        if answer.status == 202:
            conversation.learn(request)
    if len(answers) < len(requests):
        assert answers, "no answer at all"
        assert answers[-1].announces_the_end, (
            f"dropped after {len(answers)} of {len(requests)} without a word"
        )
        assert answers[-1].status >= 400, "the end was announced without a cause"
        assert len(answers) > stream.sound, "a sound request was not answered"
    told = len(answers) > len(requests) or bool(answers and answers[-1].announces_the_end)
    assert told or end is not End.MALFORMED, "what is no HTTP was left without an answer"
    assert ended or last is None, "the connection was left open"


def _check_form(answer: Answer, request: Read | None, described: Described) -> None:
    assert answer.status < 500 or answer.status == 503, f"{answer.status} is no answer that is specified"
    if answer.status >= 400 and answer.body:
        known = request is None or described.knows(request.path)
        described.check_problem(answer.status, answer.headers, answer.body, knows_methods=known)
        assert not oracle.holds_card(answer.body.decode()), "a card number is repeated"
    elif request is not None and answer.status < 400:
        described.check(request.method, request.path, answer.status, answer.headers, answer.body)


async def converse(address: str, stream: Stream, answers: list[Answer]) -> bool:
    """Gathers the answers; True when the server ended the connection. No end that can't be is awaited."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    requests, end, rest = read(stream.raw)
    has_end = end is End.MALFORMED or any(request.is_last for request in requests)
    awaited = None if has_end else len(requests)
    methods = [request.method for request in requests]
    sending = asyncio.create_task(_send(writer, stream))
    try:
        async with asyncio.timeout(_WAIT_S):
            while awaited is None or len(answers) < awaited:
                method = methods[len(answers)] if len(answers) < len(methods) else "?"
                answer = await _answer(reader, method, rest)
                if answer is None:
                    return True
                answers.append(answer)
                assert len(answers) <= _ANSWERS_MAX, "there is no end to the answers"
                if answer.announces_the_end:  # it was read to the end of the connection
                    return True
    except TimeoutError:
        return False
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    return False


async def _send(writer: asyncio.StreamWriter, stream: Stream) -> None:
    for piece in stream.pieces:
        writer.write(piece)
        await writer.drain()


async def _answer(reader: asyncio.StreamReader, method: str, rest: bytes) -> Answer | None:
    """None when the server ended the connection between two answers."""
    status, headers = 100, {"": ""}
    while status == 100:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial and not _SIMPLE_REQUEST.match(rest):
                raise AssertionError(f"cut within an answer's head: {error.partial!r}") from error
            return Answer(400, {"connection": "close"}, b"") if error.partial else None
        except asyncio.LimitOverrunError:  # a long document, if it is one without a head
            assert _SIMPLE_REQUEST.match(rest), f"no answer's head ends: {await reader.read(200)!r}"
            await reader.read(-1)
            return Answer(400, {"connection": "close"}, b"")
        except ConnectionError:
            # nginx does not read on after a 400: what is still sent resets the connection, answer and all.
            return Answer(400, {"connection": "close"}, b"") if rest else None
        status, headers = _head(head)
    if status in BODILESS:
        return Answer(status, headers, b"")
    length = int(headers.get("content-length", "0"))
    if headers.get("connection", "").lower() == "close":
        # It may be the answer to a HEAD that was broken so that nobody else can tell.
        body = await reader.read(-1)
        assert len(body) == length or (not body and method in ("HEAD", "?")), (
            "the body is not as long as told"
        )
        return Answer(status, headers, body)
    return Answer(status, headers, b"" if method == "HEAD" else await reader.readexactly(length))


def _head(head: bytes) -> tuple[int, dict[str, str]]:
    status_line, *lines = head[:-4].decode("latin-1").split("\r\n")
    match = re.fullmatch(r"HTTP/1\.1 ([1-5][0-9][0-9]) [ -~]*", status_line)
    assert match, f"no status line: {status_line!r}"
    pairs = [line.split(": ", 1) for line in lines]
    assert all(re.fullmatch("[A-Za-z-]+", name) for name, *_ in pairs), lines
    counted = Counter(name.lower() for name, _ in pairs)
    assert max(counted.values(), default=1) == 1, f"a header comes twice: {counted}"
    return int(match[1]), {name.lower(): value for name, value in pairs}


def documented(raw: bytes) -> Described:
    return Described(json.loads(raw))
