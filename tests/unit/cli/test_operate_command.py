"""When an operation is asked for again with its key, and when not."""

from __future__ import annotations

import pytest

from tollgate.cli.operate import must_ask_again


@pytest.mark.parametrize(
    ("status", "code", "again"),
    [
        (0, "", True),
        (429, "rate_limited", True),
        (500, "internal", True),
        (503, "ledger_unavailable", True),
        (409, "not_yet_processed", True),
        (409, "invalid_transition", False),
        (422, "amount_too_large", False),
        (400, "invalid_request", False),
        (404, "not_found", False),
    ],
)
def test_what_was_refused_is_not_asked_for_again(status: int, code: str, again: bool) -> None:
    assert must_ask_again(status, {"code": code}) is again
