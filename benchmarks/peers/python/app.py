"""What a good Python engineer would build in a shard's place: FastAPI, and an INSERT by asyncpg.

Run by uvicorn in one process with 20 connections. It takes and answers what a shard's POST and GET
/v1/payments do, as far as pydantic checks it: duplicate JSON keys, which it can't see, are not looked for,
and a refusal is FastAPI's own 422. A payment and its change are one statement, committed with fsync before
the answer. Nothing is shipped to Kafka.
"""

# mypy: ignore-errors
# Its dependencies are not the project's: it runs in an environment of its own (requirements.lock).

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import asyncpg
from fastapi import Depends, FastAPI, Header, HTTPException, Path, Response
from iso4217 import Currency
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

CONNECTIONS = 20
CURRENCIES = {currency.code for currency in Currency if currency.exponent is not None}
MERCHANTS = {hashlib.sha256(os.environ["PEER_API_KEY"].encode()).digest(): os.environ["PEER_MERCHANT"]}
SIGNING_KEY = os.environ["PEER_SIGNING_KEY"].encode()

SCHEMA = """
CREATE TABLE IF NOT EXISTS payments (
    merchant text NOT NULL,
    checkout_id text NOT NULL,
    status text NOT NULL DEFAULT 'pending',
    version bigint NOT NULL DEFAULT 0,
    amount bigint NOT NULL,
    currency text NOT NULL,
    capture text NOT NULL,
    payment_method text NOT NULL,
    psp text NOT NULL,
    customer_id text,
    description text,
    return_url text,
    metadata jsonb NOT NULL,
    fingerprint bytea NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (merchant, checkout_id)
);
CREATE TABLE IF NOT EXISTS changes (
    sequence bigserial PRIMARY KEY,
    merchant text NOT NULL,
    checkout_id text NOT NULL,
    committed_at timestamptz NOT NULL DEFAULT now()
);
"""
INSERT = """
WITH taken AS (
    INSERT INTO payments (merchant, checkout_id, amount, currency, capture, payment_method, psp, customer_id,
                          description, return_url, metadata, fingerprint, created_at, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
    ON CONFLICT DO NOTHING
    RETURNING merchant, checkout_id
)
INSERT INTO changes (merchant, checkout_id) SELECT merchant, checkout_id FROM taken RETURNING sequence
"""
SELECT = "SELECT * FROM payments WHERE merchant = $1 AND checkout_id = $2"

_SUSPECT = re.compile(
    r"(?<![^\W_])(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}|\d{4}[ -]\d{6}[ -]\d{4,5})(?![^\W_])"
)


def _passes_luhn(digits: str) -> bool:
    doubled = [int(digit) * (1 + n % 2) for n, digit in enumerate(reversed(digits))]
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


def _plain(text: str) -> str:
    """Neither NUL nor a card number."""
    if "\0" in text:
        raise ValueError("holds a NUL character")
    for match in _SUSPECT.finditer(text):
        if match[0][0] in "3456" and _passes_luhn(re.sub("[ -]", "", match[0])):
            raise ValueError("holds a card number")
    return text


def _no_card_key(key: str) -> str:
    if key.lower() in {"cvv", "cvc", "pan"}:
        raise ValueError("is card data")
    return _plain(key)


def _currency(code: str) -> str:
    if code not in CURRENCIES:
        raise ValueError("must be an ISO 4217 code")
    return code


def _text(most: int, least: int = 0) -> Any:
    return Annotated[str, Field(min_length=least, max_length=most), AfterValidator(_plain)]


MetadataKey = Annotated[str, Field(max_length=40), AfterValidator(_no_card_key)]


class NewPayment(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    amount: Annotated[int, Field(ge=1, le=99_999_999_999)]
    currency: Annotated[str, AfterValidator(_currency)]
    payment_method: _text(255, 1)
    capture: Literal["automatic", "manual"] | None = None
    psp: Literal["simulator"] | None = None
    customer_id: _text(64) | None = None
    description: _text(500) | None = None
    return_url: _text(2048) | None = None
    metadata: Annotated[dict[MetadataKey, _text(500)], Field(max_length=20)] | None = None
    payment_checkout_id: str | None = None

    def fingerprint(self) -> bytes:
        content = self.model_dump(exclude_none=True, exclude={"payment_checkout_id"})
        content.setdefault("capture", "automatic")
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()


class Payment(BaseModel):
    payment_checkout_id: str
    status: str
    amount: int
    currency: str
    captured_amount: int = 0
    refunded_amount: int = 0
    capture: str
    version: int
    psp: str
    psp_reference: str | None = None
    risk_score: int | None = None
    failure: dict[str, str] | None = None
    next_action: dict[str, str] | None = None
    customer_id: str | None
    description: str | None
    metadata: dict[str, str]
    operations: list[dict[str, Any]] = []
    client_secret: str
    created_at: datetime
    updated_at: datetime


async def _initialize(connection: asyncpg.Connection) -> None:
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    dsn = os.environ["PEER_POSTGRES_DSN"]
    async with asyncpg.create_pool(dsn, min_size=CONNECTIONS, max_size=CONNECTIONS, init=_initialize) as pool:
        await pool.execute(SCHEMA)
        app.state.pool = pool
        yield


app = FastAPI(lifespan=_lifespan, openapi_url=None)


def _merchant(authorization: Annotated[str, Header()] = "") -> str:
    scheme, _, key = authorization.partition(" ")
    merchant = MERCHANTS.get(hashlib.sha256(key.encode()).digest())
    if scheme != "Bearer" or merchant is None:
        raise HTTPException(401, "The secret key is missing or not known.")
    return merchant


Merchant = Annotated[str, Depends(_merchant)]
CheckoutId = Annotated[str, Header(alias="X-PAYMENT-CHECKOUT-ID", pattern=r"^[A-Za-z0-9_-]{8,64}$")]


@app.post("/v1/payments", status_code=202)
async def create(
    body: NewPayment, merchant: Merchant, checkout_id: CheckoutId, response: Response
) -> Payment:
    if body.payment_checkout_id not in (None, checkout_id):
        raise HTTPException(400, "payment_checkout_id must equal the header.")
    now = datetime.now(UTC)
    row = {
        "merchant": merchant,
        "checkout_id": checkout_id,
        "amount": body.amount,
        "currency": body.currency,
        "capture": body.capture or "automatic",
        "payment_method": body.payment_method,
        "psp": body.psp or "simulator",
        "customer_id": body.customer_id,
        "description": body.description,
        "return_url": body.return_url,
        "metadata": body.metadata or {},
        "fingerprint": body.fingerprint(),
        "created_at": now,
        "expires_at": now + timedelta(hours=1),
    }
    response.headers["Retry-After"] = "2"
    if await app.state.pool.fetchval(INSERT, *row.values()) is not None:
        response.headers["Location"] = f"/v1/payments/{checkout_id}"
        return _payment({**row, "status": "pending", "version": 0})
    known = await app.state.pool.fetchrow(SELECT, merchant, checkout_id)
    if known["fingerprint"] != row["fingerprint"]:
        raise HTTPException(422, "This id was used for another payment.")
    response.status_code = 200
    response.headers["Idempotent-Replayed"] = "true"
    return _payment(known)


@app.get("/v1/payments/{checkout_id}")
async def read(checkout_id: Annotated[str, Path()], merchant: Merchant, response: Response) -> Payment:
    row = await app.state.pool.fetchrow(SELECT, merchant, checkout_id)
    if row is None:
        raise HTTPException(404, "There is no such payment.")
    response.headers["ETag"] = f'"{row["version"]}"'
    response.headers["Cache-Control"] = "no-store"
    response.headers["Retry-After"] = "2"
    return _payment(row)


@app.get("/readyz")
async def ready() -> dict[str, str]:
    return {"status": "ready"}


def _payment(row: Any) -> Payment:
    merchant, checkout_id = row["merchant"], row["checkout_id"]
    mac = hmac.digest(SIGNING_KEY, f"{merchant}/{checkout_id}".encode(), "sha256")
    return Payment(
        payment_checkout_id=checkout_id,
        status=row["status"],
        amount=row["amount"],
        currency=row["currency"],
        capture=row["capture"],
        version=row["version"],
        psp=row["psp"],
        customer_id=row["customer_id"],
        description=row["description"],
        metadata=row["metadata"],
        client_secret=f"{merchant}-{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}",
        created_at=row["created_at"],
        updated_at=row["created_at"],
    )
