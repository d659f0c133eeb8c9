-- Room on its page for the one update that nearly every row gets, so that it needs no new index entries: an attempt
-- grows by its answer to more than twice its size, a payment by its PSP's name for it.

ALTER TABLE attempts SET (fillfactor = 30);
ALTER TABLE payments SET (fillfactor = 45);
