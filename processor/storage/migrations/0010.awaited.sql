-- A PSP may take an order and tell by a notification what came of it.

ALTER TABLE attempts DROP CONSTRAINT attempts_outcome_check;
ALTER TABLE attempts ADD CONSTRAINT attempts_outcome_check CHECK (
    outcome IN ('approved', 'advanced', 'awaited', 'declined', 'action_required', 'retryable', 'unknown'));
