"""The log of what clients were told: what is written is read back, and nothing that must not be there."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from tollgate.client_log import ClientLog, parsed_us, read_client_log
from tollgate.errors import OperationalError, RejectedInput

PAYMENT = {
    "payment_checkout_id": "order-00000001",
    "status": "succeeded",
    "version": 5,
    "amount": 1000,
    "currency": "EUR",
    "captured_amount": 1000,
    "refunded_amount": 0,
    "capture": "automatic",
    "client_secret": "demo-secret",
    "description": "not compared",
    "operations": [
        {"id": "op_1", "type": "refund", "amount": 3, "status": "pending", "failure": None, "created_at": "x"}
    ],
}


def test_what_was_told_is_read_back_and_secrets_stay_out(tmp_path: Path) -> None:
    path = tmp_path / "told.jsonl"
    with ClientLog(path, "demo") as log:
        log.write(
            sent_us=1_700_000_000_000_001,
            at_us=1_700_000_000_020_000,
            method="GET",
            path="/v1/payments/order-00000001?client_secret=demo-secret",
            status=200,
            body=orjson.dumps(PAYMENT),
            checkout_id="order-00000001",
        )
    assert b"secret" not in path.read_bytes()
    [told] = read_client_log(path)
    assert (told.sent_us, told.at_us) == (1_700_000_000_000_001, 1_700_000_000_020_000)
    assert (told.method, told.path, told.status) == ("GET", "/v1/payments/order-00000001", 200)
    assert (told.merchant, told.checkout_id) == ("demo", "order-00000001")
    assert told.answer["version"] == 5
    assert told.answer["operations"] == [{"id": "op_1", "type": "refund", "amount": 3, "status": "pending"}]
    assert "description" not in told.answer


def test_an_error_keeps_its_code_no_answer_keeps_nothing_and_a_304_its_version(tmp_path: Path) -> None:
    path = tmp_path / "told.jsonl"
    with ClientLog(path) as log:
        common = {"sent_us": 1, "at_us": 2, "method": "GET", "path": "/v1/payments/x"}
        log.write(**common, status=404, body=b'{"code":"not_found","status":404,"title":"no"}')  # type: ignore[arg-type]
        log.write(**common, status=0)  # type: ignore[arg-type]
        log.write(**common, status=304, etag='"7"')  # type: ignore[arg-type]
        log.write(**common, status=502, body=b"<html>")  # type: ignore[arg-type]
    told = list(read_client_log(path))
    assert [one.status for one in told] == [404, 0, 304, 502]
    assert [one.answer for one in told] == [{"code": "not_found"}, {}, {"version": 7}, {}]


def test_a_leak_is_decided_on_the_whole_answer(tmp_path: Path) -> None:
    path = tmp_path / "told.jsonl"
    with ClientLog(path, find_leak=lambda body: "a word" if b"compared" in body else "") as log:
        log.write(sent_us=1, at_us=2, method="GET", path="/", status=200, body=orjson.dumps(PAYMENT))
    [told] = read_client_log(path)
    assert told.leak == "a word"


def test_a_line_that_was_being_written_is_passed_over_and_another_that_is_none_is_named(
    tmp_path: Path,
) -> None:
    path = tmp_path / "told.jsonl"
    with ClientLog(path) as log:
        log.write(sent_us=1, at_us=2, method="GET", path="/", status=200)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    assert len(list(read_client_log(path))) == 1
    path.write_bytes(whole + b'{"sent": "yesterday"}\n')
    with pytest.raises(RejectedInput, match="line 2"):
        list(read_client_log(path))
    with pytest.raises(OperationalError, match="can't be read"):
        list(read_client_log(tmp_path / "nowhere"))
    with pytest.raises(OperationalError, match="can't be written"):
        ClientLog(tmp_path)


@pytest.mark.parametrize("at_us", [0, 1, 999_999, 1_700_000_000_123_457, 4_102_444_799_999_999])
def test_times_are_exact_to_the_microsecond(at_us: int) -> None:
    from tollgate.clock import rfc3339

    assert parsed_us(rfc3339(at_us)) == at_us
