-- Captures, cancels and refunds: asked for once under a client's key, sent in steps, and held by the database too
-- to what a payment has.

ALTER TABLE payments ADD COLUMN operation_count integer NOT NULL DEFAULT 0;  -- those that clients see

-- Amounts fit the status: nothing is captured before a payment succeeds, and what is refunded says how it is called.
ALTER TABLE payments ADD CHECK (CASE status
    WHEN 'succeeded' THEN captured_amount > 0 AND refunded_amount = 0
    WHEN 'partially_refunded' THEN refunded_amount > 0 AND refunded_amount < captured_amount
    WHEN 'refunded' THEN captured_amount > 0 AND refunded_amount = captured_amount
    ELSE captured_amount = 0 END);

ALTER TABLE operations
    ADD COLUMN number integer NOT NULL DEFAULT 0,  -- counts those that clients see, from 1
    ADD COLUMN idempotency_key text,  -- the client's; NULL for the payment's own
    ADD COLUMN fingerprint bytea,
    ADD COLUMN reason text NOT NULL DEFAULT '',
    ADD CHECK ((type = 'payment') = (idempotency_key IS NULL)),
    ADD CHECK ((type = 'payment') = (number = 0)),
    ADD CHECK ((idempotency_key IS NULL) = (fingerprint IS NULL));

CREATE UNIQUE INDEX operations_idempotency_key ON operations (merchant, checkout_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE UNIQUE INDEX operations_number ON operations (merchant, checkout_id, number) WHERE number > 0;
-- An authorization ends once: one capture or cancel that has not failed.
CREATE UNIQUE INDEX operations_end_authorization ON operations (merchant, checkout_id)
    WHERE type IN ('capture', 'cancel') AND status <> 'failed';

-- Whoever inserts a refund holds the payment's row, as the Ledger does anyway.
CREATE FUNCTION refuse_excessive_operation() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    payment payments%ROWTYPE;
    refunds bigint;
BEGIN
    SELECT * INTO payment FROM payments
    WHERE merchant = NEW.merchant AND checkout_id = NEW.checkout_id FOR UPDATE;
    SELECT coalesce(sum(amount), 0) INTO refunds FROM operations
    WHERE merchant = NEW.merchant AND checkout_id = NEW.checkout_id AND type = 'refund' AND status <> 'failed';
    IF refunds > payment.captured_amount OR NEW.amount > payment.amount THEN
        RAISE EXCEPTION 'payment %/%: operation % is more than the payment has',
            NEW.merchant, NEW.checkout_id, NEW.id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER operations_asked_for AFTER INSERT OR UPDATE OF amount, type, status ON operations
    FOR EACH ROW WHEN (NEW.type <> 'payment' AND NEW.status <> 'failed')
    EXECUTE FUNCTION refuse_excessive_operation();

CREATE OR REPLACE FUNCTION refuse_illegal_change() RETURNS trigger LANGUAGE plpgsql AS $$
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
    IF NEW.amount <> OLD.amount OR NEW.currency <> OLD.currency OR NEW.refunded_amount < OLD.refunded_amount
        OR (OLD.captured_amount > 0 AND NEW.captured_amount <> OLD.captured_amount) THEN
        RAISE EXCEPTION 'payment %/%: what was authorized, captured or refunded may not change back',
            OLD.merchant, OLD.checkout_id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$;

ALTER TABLE psp_requests ADD COLUMN position integer NOT NULL DEFAULT 1 CHECK (position >= 1);  -- among the steps

-- A step's answer may lead to the next step; a payment that waits is asked about.
ALTER TABLE attempts ADD COLUMN reference text NOT NULL DEFAULT '';  -- what the PSP named in its answer
ALTER TABLE attempts DROP CONSTRAINT attempts_kind_check, DROP CONSTRAINT attempts_outcome_check;
ALTER TABLE attempts
    ADD CONSTRAINT attempts_kind_check CHECK (kind IN ('send', 'look_up', 'ask')),
    ADD CONSTRAINT attempts_outcome_check CHECK (
        outcome IN ('approved', 'advanced', 'declined', 'action_required', 'retryable', 'unknown'));
