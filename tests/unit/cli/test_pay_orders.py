"""What is asked to be paid: right or refused with the line, before anything is sent."""

from __future__ import annotations

import random
from pathlib import Path

import orjson
import pytest

from tollgate.cli.pay_orders import acceptable, generate_orders, read_orders
from tollgate.errors import RejectedInput
from tollgate.money import EXPONENT
from tollgate.status import AUTHORIZED, FAILED, NAME, SUCCEEDED

EXAMPLES = Path(__file__).parents[3] / "examples" / "payments.jsonl"
GOOD = '{"payment_checkout_id": "checkout-1", "amount": 1, "currency": "EUR", "payment_method": "pm_ok"}'


def read(tmp_path: Path, *lines: str) -> list[bytes]:
    path = tmp_path / "payments.jsonl"
    path.write_text("\n".join(lines))
    return [order.raw for order in read_orders(path, random.Random(1))]


def test_the_examples_are_right_and_show_what_they_say() -> None:
    orders = read_orders(EXAMPLES, random.Random(1))
    assert len(orders) >= 20
    assert {EXPONENT[order.body.currency] for order in orders} == {0, 2, 3}
    assert {NAME[order.expected] for order in orders} == {"succeeded", "failed", "authorized"}
    assert any(order.body.payment_method.startswith("pm_slow_") for order in orders)


def test_a_line_is_sent_as_it_was_written_but_for_its_id(tmp_path: Path) -> None:
    (raw,) = read(tmp_path, GOOD, "", "  ")
    assert orjson.loads(raw) == {"amount": 1, "currency": "EUR", "payment_method": "pm_ok"}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        (GOOD.replace("EUR", "EUX"), "currency.*'EUX' is not an ISO 4217 currency"),
        (GOOD.replace("EUR", "XAU"), "currency"),
        (GOOD.replace("1,", "1.0,"), "amount"),
        (GOOD.replace("1,", "true,"), "amount"),
        (GOOD.replace("1,", "100000000000,"), "amount"),
        (GOOD.replace('"pm_ok"', '""'), "payment_method"),
        (GOOD.replace("amount", "amonut"), "amount: Field required; amonut"),
        (GOOD.replace('checkout-1"', 'short"'), "8–64"),
    ],
)
def test_a_wrong_line_is_refused_by_its_number(tmp_path: Path, line: str, complaint: str) -> None:
    with pytest.raises(RejectedInput, match=rf"line 3: .*{complaint}.*Nothing was sent"):
        read(tmp_path, GOOD.replace("checkout-1", "checkout-0"), "", line)


def test_an_id_used_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    with pytest.raises(RejectedInput, match="line 2: checkout-1 is the id of line 1"):
        read(tmp_path, GOOD, GOOD)


def test_a_file_that_is_not_there_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RejectedInput, match="No such file"):
        read_orders(tmp_path / "none.jsonl", random.Random(1))
    with pytest.raises(RejectedInput, match="holds no payment"):
        read(tmp_path, "")


def test_the_same_seed_makes_the_same_payments_and_another_makes_others() -> None:
    def make(seed: int) -> list[str]:
        orders = generate_orders(
            5, random.Random(seed), amount=None, currency="EUR", payment_method="pm_ok", capture="automatic"
        )
        return [order.checkout_id + order.raw.decode() for order in orders]

    assert make(1) == make(1)
    assert not set(make(1)) & set(make(2))


def test_what_a_later_operation_made_of_a_payment_is_acceptable_and_a_failure_is_not() -> None:
    assert {NAME[status] for status in acceptable(SUCCEEDED)} == {
        "succeeded",
        "partially_refunded",
        "refunded",
    }
    assert {NAME[status] for status in acceptable(AUTHORIZED)} >= {"authorized", "succeeded", "canceled"}
    assert acceptable(FAILED) == {FAILED}
