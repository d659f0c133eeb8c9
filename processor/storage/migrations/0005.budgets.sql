-- How fast a PSP may be called, over all processors, and whose turn it is when the calls don't suffice for all.

CREATE TABLE psp_budgets (
    psp text PRIMARY KEY,
    next_at timestamptz NOT NULL  -- Postgres' clock: every slot before it is reserved
);

-- Beside the payment's own, so that what is due at one PSP is found by index.
ALTER TABLE operations ADD COLUMN psp text;

UPDATE operations AS o SET psp = p.psp
FROM payments AS p WHERE p.merchant = o.merchant AND p.checkout_id = o.checkout_id;

ALTER TABLE operations ALTER COLUMN psp SET NOT NULL;

CREATE FUNCTION take_psp_of_payment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT psp INTO NEW.psp FROM payments WHERE merchant = NEW.merchant AND checkout_id = NEW.checkout_id;
    RETURN NEW;
END
$$;

CREATE TRIGGER operations_psp BEFORE INSERT ON operations
    FOR EACH ROW WHEN (NEW.psp IS NULL) EXECUTE FUNCTION take_psp_of_payment();

CREATE INDEX operations_turn ON operations (psp, merchant, claimable_at) WHERE claimable_at IS NOT NULL;
