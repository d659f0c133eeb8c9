"""One body, admitted and judged: what must hold whichever way it goes. Raises AssertionError."""

from __future__ import annotations

from typing import Final

import orjson

from gateway.admission import Admitted, admit
from gateway.strict_json import Rejected
from tests.fuzz import oracle

PSPS: Final = frozenset({"simulator", "stripe"})
_OWN_NAMES: Final = {*oracle.FIELDS, oracle.HEADER, "body", "(a field whose name is not repeated)"}


def check(body: bytes, checkout_id: str) -> bool:
    """Whether it was taken."""
    decision = admit(body, checkout_id, PSPS)
    expected = oracle.judge(body, checkout_id, PSPS)
    if isinstance(decision, Admitted):
        assert expected.is_taken, "admitted, and should not be"
        _check_what_was_read(decision, expected)
        return True
    assert not expected.is_taken, f"refused, and should not be: {decision.problems}"
    _check_what_is_told(decision, expected, body)
    return False


def _check_what_was_read(decision: Admitted, expected: oracle.Verdict) -> None:
    request = decision.request
    read = {name: getattr(request, name) for name in request.__struct_fields__}
    assert {name: value for name, value in read.items() if value is not None} == oracle.content(
        expected.values
    )
    assert decision.fingerprint == oracle.fingerprint(expected.values)


def _check_what_is_told(decision: Rejected, expected: oracle.Verdict, body: bytes) -> None:
    told = {problem.field for problem in decision.problems}
    assert told, "refused without a reason"
    text = orjson.dumps([problem._asdict() for problem in decision.problems]).decode()
    assert not oracle.holds_card(text), "a card number is repeated"
    if not oracle.is_sure(body):
        return
    if expected.is_object:
        assert told <= _OWN_NAMES | expected.strangers
        assert told & {*oracle.FIELDS, oracle.HEADER} == expected.wrong, f"of {expected.wrong} it told {told}"
        assert bool(told - {*oracle.FIELDS, oracle.HEADER}) == bool(expected.strangers)
    else:
        assert "body" in told
        assert (oracle.HEADER in told) == (oracle.HEADER in expected.wrong)
