"""The steps of the hot way: admission, serialization, ring, planning, the store, the answer, and all of it.

All work on the payment that the load generator sends.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import orjson
from pydantic import SecretStr

from benchmarks.measure.generator import PAYMENT
from benchmarks.micro.timing import Case
from gateway.admission import Admitted, admit
from gateway.bootstrap import Shard, build
from gateway.change_log import Identity, LogState
from gateway.http.message import Request, Response
from gateway.planner import Acceptance, Planner, keys_of
from gateway.ring import Ring
from gateway.settings import DevelopmentSettings, GatewaySettings, ShardSettings
from gateway.store.interface import Store
from gateway.store.rocks import RocksStore
from tollgate.client_secrets import ClientSecrets
from tollgate.errors import TollgateError
from tollgate.ids import payment_key
from tollgate.payment_json import payment_document
from tollgate.shard_layout import PAYMENTS
from tollgate.v1.payment_pb2 import Capture, MetadataEntry, Payment, Status

_BODY: Final = PAYMENT.read_bytes()
_ID: Final = "6f1b7c52-0d9e-4b7a-9a51-2f0f3a6c1e88"
_PSPS: Final = frozenset({"simulator"})
_KEY: Final = "tg_sk_" + "0" * 32
_SIGNING_KEY: Final = b"0" * 32
_BATCHES: Final = (1, 32, 512)
# More of it in flight than this, and a batch would be larger than any that a shard sees at 32 connections.
_IN_FLIGHT: Final = 32


def admission() -> Iterator[Case]:
    large = _with(metadata={f"key_{n}": "v" * 500 for n in range(20)}, description="d" * 500)
    yield Case("admission: a typical body", lambda: admit(_BODY, _ID, _PSPS))
    yield Case("admission: the largest body", lambda: admit(large, _ID, _PSPS))
    escaped = _with(description="a \\ backslash")
    yield Case("admission: read twice (a backslash)", lambda: admit(escaped, _ID, _PSPS))
    refused = _with(amount=0, currency="eur", description="4111 1111 1111 1111")
    yield Case("admission: refused, three fields", lambda: admit(refused, _ID, _PSPS))


def json() -> Iterator[Case]:
    payment = _payment(_ID)
    stored = payment.SerializeToString()
    document = payment_document(payment)
    secrets = ClientSecrets(_SIGNING_KEY)
    yield Case("json: build the message", lambda: _payment(_ID))
    yield Case("json: serialize it for the store", payment.SerializeToString)
    yield Case("json: parse it from the store", lambda: Payment.FromString(stored))
    yield Case("json: the document of the answer", lambda: payment_document(payment))
    yield Case("json: its bytes", lambda: orjson.dumps(document))
    yield Case("json: the client secret", lambda: secrets.secret("demo", _ID))


def ring() -> Iterator[Case]:
    for count in _BATCHES:
        waiting: Ring[int] = Ring(2 * count, 1 << 20)

        def once(waiting: Ring[int] = waiting, count: int = count) -> None:
            for n in range(count):
                waiting.push(n, 500)
            waiting.drain(count)

        yield Case(f"ring: push and drain, {count} at once", once, count)


def commit(folder: Path) -> Iterator[Case]:
    planner = Planner(Identity(0, bytes(16), 1))
    for count in _BATCHES:
        entries = [_acceptance(f"{_ID[:-4]}{n:04}") for n in range(count)]
        found = dict.fromkeys(keys_of(entries))

        def plan(entries: list[Acceptance] = entries, found: dict[str, None] = found) -> object:
            return planner.plan(entries, found, LogState(), 1_700_000_000_000_000)

        yield Case(f"commit: plan, {count} a batch", plan, count)
    with _store(folder / "commit") as store:
        yield from _store_cases(store, planner)


def _store_cases(store: Store, planner: Planner) -> Iterator[Case]:
    numbers = itertools.count()

    def fresh(count: int) -> list[Acceptance]:
        return [_acceptance(f"{next(numbers):032x}") for _ in range(count)]

    for count in _BATCHES:
        keys = [entry.key.encode() for entry in fresh(count)]

        def look_up(keys: list[bytes] = keys) -> object:
            return store.get_many(PAYMENTS, keys)

        yield Case(f"commit: look up new ids, {count} a batch", look_up, count)
        entries = fresh(count)
        plan = planner.plan(entries, dict.fromkeys(keys_of(entries)), LogState(), 1_700_000_000_000_000)

        def write(operations: list[object] = list(plan.operations)) -> None:  # noqa: B006 - bound, never changed
            store.write(operations)  # type: ignore[arg-type]

        yield Case(f"commit: write, {count} a batch", write, count)

        def durable(operations: list[object] = list(plan.operations)) -> None:  # noqa: B006
            store.write(operations)  # type: ignore[arg-type]
            store.flush()

        yield Case(f"commit: write and fsync, {count} a batch", durable, count)
    known = fresh(1)[0]
    store.write(planner.plan([known], {known.key: None}, LogState(), 1).operations)
    key = known.key.encode()
    yield Case("commit: read one payment", lambda: store.get(PAYMENTS, key))


def handler(folder: Path) -> Iterator[Case]:
    """The shard's handlers without a server: everything that Python does for a request, and the disk."""
    runner = asyncio.Runner()
    settings = GatewaySettings(
        shard=ShardSettings(id=0, data_dir=folder / "handler", http="127.0.0.1:1", grpc="127.0.0.1:2"),
        client_secret_key=SecretStr(_SIGNING_KEY.decode()),
        development=DevelopmentSettings(api_key=SecretStr(_KEY), merchant="demo"),
    )
    settings.shard.data_dir.mkdir()
    numbers = itertools.count()

    async def start() -> Shard:
        shard = build(settings, on_failure=lambda _reason: None)
        shard.health.starting = False
        return shard

    async def post(shard: Shard) -> None:
        ids = [f"{_ID[:-8]}{next(numbers):08x}" for _ in range(_IN_FLIGHT)]
        answers = await asyncio.gather(*(shard.http.handle(_post(checkout_id)) for checkout_id in ids))
        _expect(answers, 202)

    async def get(shard: Shard) -> None:
        _expect([await shard.http.handle(_get(known)) for _ in range(_IN_FLIGHT)], 200)

    with runner:
        shard = runner.run(start())
        try:
            yield Case(f"handler: POST, {_IN_FLIGHT} in flight", lambda: runner.run(post(shard)), _IN_FLIGHT)
            known = f"{_ID[:-8]}{0:08x}"
            yield Case("handler: GET", lambda: runner.run(get(shard)), _IN_FLIGHT)
        finally:
            shard.flusher.close(5)
            shard.store.close()
            shard.watermark.close()


class _Headers:
    def __init__(self, **named: str) -> None:
        self._named = {name.replace("_", "-"): value for name, value in named.items()}

    def get(self, name: str) -> str | None:
        return self._named.get(name)

    def get_all(self, name: str) -> list[str]:
        value = self._named.get(name)
        return [] if value is None else [value]

    def items(self) -> Iterable[tuple[str, str]]:
        return self._named.items()


def _post(checkout_id: str) -> Request:
    headers = _Headers(
        authorization=f"Bearer {_KEY}",
        content_type="application/json",
        content_length=str(len(_BODY)),
        x_payment_checkout_id=checkout_id,
    )
    return Request("POST", "/v1/payments", "", headers, _BODY)


def _get(checkout_id: str) -> Request:
    return Request("GET", f"/v1/payments/{checkout_id}", "", _Headers(authorization=f"Bearer {_KEY}"), b"")


def _expect(answers: list[Response], status: int) -> None:
    for answer in answers:
        if answer.status != status:
            raise TollgateError(f"A handler answered {answer.status} where {status} was to be measured.")


def _with(**fields: object) -> bytes:
    return orjson.dumps(orjson.loads(_BODY) | fields)


def _admitted() -> Admitted:
    decision = admit(_BODY, _ID, _PSPS)
    if not isinstance(decision, Admitted):
        raise TollgateError("The generator's payment is not admitted: nothing can be measured with it.")
    return decision


def _payment(checkout_id: str) -> Payment:
    sent = orjson.loads(_BODY)
    return Payment(
        merchant="demo",
        checkout_id=checkout_id,
        status=Status.STATUS_PENDING,
        amount=sent["amount"],
        currency=sent["currency"],
        capture=Capture.CAPTURE_AUTOMATIC,
        payment_method=sent["payment_method"],
        psp="simulator",
        customer_id=sent["customer_id"],
        metadata=[MetadataEntry(key=key, value=value) for key, value in sent["metadata"].items()],
        fingerprint=bytes(32),
        created_at_us=1_700_000_000_000_000,
        updated_at_us=1_700_000_000_000_000,
        expires_at_us=1_700_003_600_000_000,
    )


def _acceptance(checkout_id: str) -> Acceptance:
    payment = _payment(checkout_id)
    return Acceptance(payment_key("demo", checkout_id), payment.SerializeToString(), payment.fingerprint, "")


@contextmanager
def _store(folder: Path) -> Iterator[Store]:
    os.makedirs(folder, exist_ok=True)
    store = RocksStore(folder)
    try:
        yield store
    finally:
        store.close()
