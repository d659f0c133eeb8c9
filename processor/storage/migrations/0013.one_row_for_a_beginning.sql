-- Intake stores a payment that it begins as versions 1 and 2 at once. One row tells of both: they differ in status and
-- version alone.
ALTER TABLE outbox ADD COLUMN with_acceptance boolean NOT NULL DEFAULT false;
