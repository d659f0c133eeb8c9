-- What merchants keep here to name in payments, and what persons decided about operations that were parked. Kept
-- for ever, resolutions as evidence; a deleted payment method is named by no payment any more, but was by earlier ones.

CREATE TABLE customers (
    merchant text NOT NULL,
    id text NOT NULL CHECK (id ~ '^cus_[0-9a-f]{24}$'),
    name text NOT NULL,
    email text NOT NULL,
    description text NOT NULL,
    metadata json NOT NULL,  -- [[key, value], ...] in the client's order
    idempotency_key text,  -- the client's, if it sent one
    fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 32),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (merchant, id)
);

CREATE UNIQUE INDEX customers_idempotency_key ON customers (merchant, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX customers_by_time ON customers (merchant, created_at DESC, id DESC);

CREATE TABLE payment_methods (
    merchant text NOT NULL,
    id text NOT NULL CHECK (id ~ '^pmt_[0-9a-f]{24}$'),
    token text NOT NULL CHECK (token <> ''),  -- the PSP's
    customer_id text NOT NULL,  -- '': nobody's
    description text NOT NULL,
    metadata json NOT NULL,
    idempotency_key text,
    fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 32),
    created_at timestamptz NOT NULL,
    deleted_at timestamptz,
    PRIMARY KEY (merchant, id)
);

CREATE UNIQUE INDEX payment_methods_idempotency_key ON payment_methods (merchant, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX payment_methods_by_time ON payment_methods (merchant, created_at DESC, id DESC)
    WHERE deleted_at IS NULL;
CREATE INDEX payment_methods_by_customer ON payment_methods (merchant, customer_id, created_at DESC, id DESC)
    WHERE deleted_at IS NULL AND customer_id <> '';

-- Which operation a version is about; NULL: the payment itself.
ALTER TABLE outbox ADD COLUMN operation_id text;

CREATE INDEX operations_parked ON operations (merchant, checkout_id, id) WHERE parked_reason IS NOT NULL;

-- A person's word on an operation that was parked, written with what it made of it.
CREATE TABLE resolutions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    merchant text NOT NULL,
    checkout_id text NOT NULL,
    operation_id text NOT NULL,
    parked_reason text NOT NULL,
    verdict text NOT NULL CHECK (verdict IN ('executed', 'not_executed')),
    psp_reference text NOT NULL,
    reason text NOT NULL CHECK (reason <> ''),
    decided_by text NOT NULL,
    decided_at timestamptz NOT NULL,
    FOREIGN KEY (merchant, checkout_id, operation_id) REFERENCES operations
);
