-- Lists, newest first. Both are of columns that never change, so that a payment's updates stay off them.

CREATE INDEX payments_by_time ON payments (merchant, created_at DESC, checkout_id DESC);
CREATE INDEX payments_by_customer ON payments (merchant, customer_id, created_at DESC, checkout_id DESC)
    WHERE customer_id <> '';
