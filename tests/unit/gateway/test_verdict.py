"""What the answers mean: no false 404, and the newest word wins."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.verdict import Absence, Answer, verdict
from tollgate.v1.payment_pb2 import Payment

payments = st.builds(Payment, version=st.integers(0, 9), psp_reference=st.sampled_from("abc"))
answers: st.SearchStrategy[Answer | None] = st.sampled_from([*Absence, None]) | payments


@given(answers, st.lists(answers, max_size=6))
def test_a_verdict_is_what_the_answers_bear(ledger: Answer | None, shards: list[Answer | None]) -> None:
    said = verdict([ledger, *shards])
    found = [answer for answer in shards if isinstance(answer, Payment)]
    if isinstance(ledger, Payment):
        assert said is ledger, "nobody knows better, and nobody is waited for"
    elif ledger is None or None in shards:
        assert said is None, "one that is not heard yet may know better, or be the only one who knows"
    elif found:
        assert isinstance(said, Payment)
        assert said.version == max(payment.version for payment in found)
        assert said is next(payment for payment in found if payment.version == said.version)
    else:
        everyone_said_no = {ledger, *shards} == {Absence.UNKNOWN}
        assert said is (Absence.UNKNOWN if everyone_said_no else Absence.SILENT)
