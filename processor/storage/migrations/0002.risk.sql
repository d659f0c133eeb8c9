-- What the risk rules made of a payment: once, before its first send.

CREATE SCHEMA risk;

CREATE TABLE risk.assessments (
    merchant text NOT NULL,
    checkout_id text NOT NULL,
    score smallint NOT NULL CHECK (score BETWEEN 0 AND 99),
    reasons jsonb NOT NULL,
    declined boolean NOT NULL,
    assessed_at timestamptz NOT NULL,
    PRIMARY KEY (merchant, checkout_id)
);
