-- Which payments the velocity rules have counted, each once for each subject. Pruned when no window reaches it.

CREATE TABLE risk.sightings (
    merchant text NOT NULL,
    checkout_id text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('customer', 'payment_method')),
    subject text NOT NULL,
    seen_at timestamptz NOT NULL,  -- Postgres' clock, taken under the subject's lock: it rises within a subject
    PRIMARY KEY (merchant, checkout_id, kind)
);

CREATE INDEX sightings_of_subject ON risk.sightings (merchant, kind, subject, seen_at, checkout_id);
CREATE INDEX sightings_by_age ON risk.sightings (seen_at);
