-- The system of record: payments, who shipped them, what is to be done, what was sent, what is to be told.
--
-- Every time is timestamptz in microseconds. Leases and due times are on Postgres' clock; facts carry the time
-- of the part that saw them. Kept for ever: payments, payment_shards, payment_conflicts, operations,
-- psp_requests, attempts, anomalies, webhook_inbox. A replay is arbitrated here without an end. Published outbox
-- rows go after 30 days.

CREATE TABLE merchants (
    id text PRIMARY KEY CHECK (id ~ '^[a-z0-9_]{1,32}$'),
    default_psp text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Only the SHA-256 of a key is ever here.
CREATE TABLE api_keys (
    key_hash bytea PRIMARY KEY CHECK (octet_length(key_hash) = 32),
    merchant text NOT NULL REFERENCES merchants (id),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    revoked_at timestamptz
);

-- The status table, so that the database refuses what the code must not do. A test compares the two.
CREATE TABLE payment_transitions (
    before_status text NOT NULL,
    after_status text NOT NULL,
    PRIMARY KEY (before_status, after_status)
);

INSERT INTO payment_transitions (before_status, after_status) VALUES
    ('pending', 'processing'), ('pending', 'canceled'), ('pending', 'failed'),
    ('processing', 'requires_action'), ('processing', 'authorized'), ('processing', 'succeeded'),
    ('processing', 'failed'), ('processing', 'canceled'),
    ('requires_action', 'processing'), ('requires_action', 'authorized'), ('requires_action', 'succeeded'),
    ('requires_action', 'failed'), ('requires_action', 'canceled'),
    ('authorized', 'succeeded'), ('authorized', 'canceled'), ('authorized', 'failed'),
    ('succeeded', 'partially_refunded'), ('succeeded', 'refunded'),
    ('partially_refunded', 'partially_refunded'), ('partially_refunded', 'refunded');

CREATE TABLE payments (
    merchant text NOT NULL,
    checkout_id text NOT NULL,
    status text NOT NULL CHECK (status IN (
        'pending', 'processing', 'requires_action', 'authorized', 'succeeded',
        'partially_refunded', 'refunded', 'failed', 'canceled')),
    version bigint NOT NULL CHECK (version >= 1),
    amount bigint NOT NULL CHECK (amount BETWEEN 1 AND 99999999999),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    capture text NOT NULL CHECK (capture IN ('automatic', 'manual')),
    payment_method text NOT NULL,
    psp text NOT NULL,
    customer_id text NOT NULL,
    description text NOT NULL,
    return_url text NOT NULL,
    metadata json NOT NULL,  -- [[key, value], ...] in the client's order, which jsonb would lose
    fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 32),
    traceparent text NOT NULL,
    created_at timestamptz NOT NULL,  -- accepted, by the shard's clock
    updated_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    captured_amount bigint NOT NULL DEFAULT 0,
    refunded_amount bigint NOT NULL DEFAULT 0,
    psp_reference text NOT NULL DEFAULT '',
    risk_score smallint CHECK (risk_score BETWEEN 0 AND 99),
    failure_code text NOT NULL DEFAULT '',
    failure_message text NOT NULL DEFAULT '',
    next_action_url text NOT NULL DEFAULT '',
    PRIMARY KEY (merchant, checkout_id),
    CHECK (captured_amount BETWEEN 0 AND amount),
    CHECK (refunded_amount BETWEEN 0 AND captured_amount)
) WITH (fillfactor = 80);

CREATE FUNCTION refuse_illegal_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.version <> OLD.version + 1 THEN
        RAISE EXCEPTION 'payment %/%: version % may not follow %',
            OLD.merchant, OLD.checkout_id, NEW.version, OLD.version USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.status <> OLD.status AND NOT EXISTS (
        SELECT FROM payment_transitions WHERE before_status = OLD.status AND after_status = NEW.status
    ) THEN
        RAISE EXCEPTION 'payment %/%: status % may not follow %',
            OLD.merchant, OLD.checkout_id, NEW.status, OLD.status USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER payments_change BEFORE UPDATE ON payments
    FOR EACH ROW EXECUTE FUNCTION refuse_illegal_change();

-- Which shard's store shipped the payment, by which change. A shard ships it again only when it lost its tail.
CREATE TABLE payment_shards (
    merchant text NOT NULL,
    checkout_id text NOT NULL,
    shard smallint NOT NULL,
    incarnation bytea NOT NULL,
    epoch bigint NOT NULL,
    sequence bigint NOT NULL,
    committed_at timestamptz NOT NULL,  -- the shard's fsync
    shipped_at timestamptz NOT NULL,  -- Kafka's timestamp of the record
    ingested_at timestamptz NOT NULL,
    PRIMARY KEY (merchant, checkout_id, shard, incarnation, epoch, sequence),
    FOREIGN KEY (merchant, checkout_id) REFERENCES payments
);

-- Another content under an id that was already taken: a person decides, the winner stands.
CREATE TABLE payment_conflicts (
    merchant text NOT NULL,
    checkout_id text NOT NULL,
    shard smallint NOT NULL,
    incarnation bytea NOT NULL,
    epoch bigint NOT NULL,
    sequence bigint NOT NULL,
    fingerprint bytea NOT NULL,
    acceptance bytea NOT NULL,  -- the losing Payment, as it was shipped
    detected_at timestamptz NOT NULL,
    PRIMARY KEY (merchant, checkout_id, shard, incarnation, epoch, sequence),
    FOREIGN KEY (merchant, checkout_id) REFERENCES payments
);

-- What is to be done to a payment. Its own execution is the operation 'payment', which clients don't see.
CREATE TABLE operations (
    merchant text NOT NULL,
    checkout_id text NOT NULL,
    id text NOT NULL,
    type text NOT NULL CHECK (type IN ('payment', 'capture', 'cancel', 'refund')),
    amount bigint NOT NULL CHECK (amount >= 1),
    status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'succeeded', 'failed')),
    failure_code text NOT NULL DEFAULT '',
    failure_message text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL,
    claimed_at timestamptz,  -- first
    decided_at timestamptz,
    -- Nobody may claim it before. A claim moves it to the end of the lease; NULL: not scheduled.
    claimable_at timestamptz,
    -- Raised by every claim. What is written under an older token is refused.
    fencing_token bigint NOT NULL DEFAULT 0,
    parked_reason text,  -- a person decides; NULL: it moves by itself
    PRIMARY KEY (merchant, checkout_id, id),
    FOREIGN KEY (merchant, checkout_id) REFERENCES payments,
    CHECK (status = 'pending' OR claimable_at IS NULL)
) WITH (fillfactor = 80);

CREATE INDEX operations_claimable ON operations (claimable_at) WHERE claimable_at IS NOT NULL;

-- The exact bytes of a step, stored before they are first sent and never changed: every send is these.
CREATE TABLE psp_requests (
    merchant text NOT NULL,
    checkout_id text NOT NULL,
    operation_id text NOT NULL,
    step text NOT NULL,
    psp text NOT NULL,
    idempotency_key text NOT NULL,
    method text NOT NULL,
    path text NOT NULL,
    body bytea NOT NULL,
    first_sent_at timestamptz NOT NULL,
    PRIMARY KEY (merchant, checkout_id, operation_id, step),
    FOREIGN KEY (merchant, checkout_id, operation_id) REFERENCES operations
);

-- One call each. Without an outcome it may or may not have had an effect.
CREATE TABLE attempts (
    merchant text NOT NULL,
    checkout_id text NOT NULL,
    operation_id text NOT NULL,
    step text NOT NULL,
    number integer NOT NULL CHECK (number >= 1),
    kind text NOT NULL CHECK (kind IN ('send', 'look_up')),
    fencing_token bigint NOT NULL,
    sent_at timestamptz NOT NULL,
    answered_at timestamptz,
    outcome text CHECK (outcome IN ('approved', 'declined', 'action_required', 'retryable', 'unknown')),
    late boolean NOT NULL DEFAULT false,  -- came after the lease was lost: evidence, not a decision
    evidence jsonb,
    PRIMARY KEY (merchant, checkout_id, operation_id, step, number),
    FOREIGN KEY (merchant, checkout_id, operation_id, step) REFERENCES psp_requests,
    CHECK ((outcome IS NULL) = (answered_at IS NULL))
);

-- What contradicts what is known: stored, alarmed, never dropped.
CREATE TABLE anomalies (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    merchant text NOT NULL,
    checkout_id text NOT NULL,
    operation_id text NOT NULL,
    kind text NOT NULL,
    evidence jsonb NOT NULL,
    detected_at timestamptz NOT NULL
);

-- One row a version, written with it. The snapshot serves the event and the shards' StatusUpdate alike.
CREATE TABLE outbox (
    -- Rises with the version within a payment, because the payment's row is locked when it is taken.
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    merchant text NOT NULL,
    checkout_id text NOT NULL,
    version bigint NOT NULL,
    slice smallint NOT NULL,
    event_type text NOT NULL,
    snapshot bytea NOT NULL,  -- Payment
    created_at timestamptz NOT NULL,
    published_at timestamptz,
    UNIQUE (merchant, checkout_id, version)
);

CREATE INDEX outbox_unpublished ON outbox (id) WHERE published_at IS NULL;

-- A shard shipped again what Postgres already had: it is told how the payment stands. Gone once delivered.
CREATE TABLE status_resends (
    merchant text NOT NULL,
    checkout_id text NOT NULL,
    shard smallint NOT NULL,
    slice smallint NOT NULL,
    requested_at timestamptz NOT NULL,
    PRIMARY KEY (merchant, checkout_id, shard)
);

-- Received webhooks, raw, once each; the PSP's adapter interprets them. "Received" is not "applied".
CREATE TABLE webhook_inbox (
    psp text NOT NULL,
    event_id text NOT NULL,
    body bytea NOT NULL,
    received_at timestamptz NOT NULL,
    ingested_at timestamptz NOT NULL,
    applied_at timestamptz,
    PRIMARY KEY (psp, event_id)
);
