-- What intake has set aside. The records themselves are in payments.dlq; here is how each stands, by where it
-- first was, and what has been done about it. Kept for ever.

CREATE TABLE dead_letters (
    origin_topic text NOT NULL,
    origin_partition integer NOT NULL,
    origin_offset bigint NOT NULL,
    key_hash bytea NOT NULL CHECK (octet_length(key_hash) = 32),  -- SHA-256: a key may be too long for an index
    error text NOT NULL,
    set_aside_at timestamptz NOT NULL,  -- last
    replays integer NOT NULL DEFAULT 0 CHECK (replays >= 0),
    redrive bigint,  -- which has sent it, or was about to
    delivered_at timestamptz,  -- Kafka has what was sent; NULL beside `redrive`: nobody knows
    taken_in_at timestamptz,  -- the end of it
    PRIMARY KEY (origin_topic, origin_partition, origin_offset)
);

-- While a key has an open one, its later changes are set aside behind it.
CREATE INDEX dead_letters_open ON dead_letters (key_hash) WHERE taken_in_at IS NULL;

CREATE TABLE dlq_redrives (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    requested_by text NOT NULL,
    filters text NOT NULL,
    selected integer NOT NULL,
    delivered integer NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz  -- NULL: under way, or interrupted
);
