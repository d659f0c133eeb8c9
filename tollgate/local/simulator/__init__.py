"""The PSP simulator: a payment service provider with a durable ledger, a process of its own.

It is an independent witness: its ledger is written and synced before it answers and never by Tollgate, so
what it says happened is what a real PSP would have charged. `kill -9` at any moment keeps every effect and
every call that was answered; a call that was cut off may or may not be there, which is what a real one
looks like from outside.

What it documents, and its adapter relies on:

- `Idempotency-Key` is required on every POST. The same key and body get the first answer again, byte for
  byte, without a second effect, for ever; the same key with another body is a 422.
- 402 is a final refusal, 400 a request that can't be one; neither had an effect. Nor had a 429, nor a 503
  with the code `unavailable_no_effect`: the same call may be sent again. Any other 5xx, and every connection
  that ends without an answer, may have had one.
"""
