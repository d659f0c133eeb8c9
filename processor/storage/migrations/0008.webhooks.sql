-- A received webhook is applied once its payment is known, or waits: what became of it, and when to look again.

ALTER TABLE webhook_inbox
    ADD COLUMN due_at timestamptz DEFAULT now(),  -- on Postgres' clock; NULL: nothing more is done with it
    ADD COLUMN tries integer NOT NULL DEFAULT 0 CHECK (tries >= 0),
    ADD COLUMN result text CHECK (result IN (
        'applied', 'known', 'irrelevant', 'anomaly', 'unreadable', 'refused', 'unmatched')),
    -- Of what it is about, as soon as that can be told.
    ADD COLUMN merchant text,
    ADD COLUMN checkout_id text,
    ADD COLUMN operation_id text,
    ADD COLUMN reference text NOT NULL DEFAULT '',  -- the PSP's own name of what it told of
    ADD CHECK ((due_at IS NULL) = (result IS NOT NULL)),
    ADD CHECK ((applied_at IS NULL) = (result IS NULL)),
    ADD CHECK ((merchant IS NULL) = (checkout_id IS NULL));

CREATE INDEX webhook_inbox_due ON webhook_inbox (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX webhook_inbox_payment ON webhook_inbox (merchant, checkout_id) WHERE merchant IS NOT NULL;

-- A PSP may name an operation by the key of a request alone.
CREATE INDEX psp_requests_key ON psp_requests (idempotency_key);
