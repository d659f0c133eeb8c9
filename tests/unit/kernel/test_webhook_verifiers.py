"""Who is believed: the simulator's signatures, held against the library that its scheme comes with."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from tollgate.errors import ConfigurationError
from tollgate.webhooks.interface import REPLAY_WINDOW_S, Malformed, Unverified, Verified, is_event_id
from tollgate.webhooks.simulator import ID, SIGNATURE, TIMESTAMP, SimulatorWebhooks, signed_headers

SECRET = "whsec_" + base64.b64encode(b"a secret of the simulator").decode()
OTHER = "whsec_" + base64.b64encode(b"a secret of somebody else").decode()
NOW_S = 1_790_000_000.0
BODY = '{"id": "evt_1", "sum": "5 €"}'.encode()
VERIFIER = SimulatorWebhooks([SECRET])


def signed(secret: str = SECRET, event_id: str = "evt_1", at_s: float = NOW_S) -> dict[str, str]:
    return signed_headers(secret, event_id, BODY, at_s)


def test_what_was_signed_is_verified_and_named_by_its_id() -> None:
    verified = VERIFIER.verify(signed(), BODY, NOW_S)
    assert verified == Verified((("evt_1", BODY),))  # type: ignore[arg-type]


def test_the_signature_is_the_librarys_own() -> None:
    moment = datetime.fromtimestamp(NOW_S, UTC)
    assert signed()[SIGNATURE] == Webhook(SECRET).sign("evt_1", moment, BODY.decode())


@given(st.data())
def test_nothing_that_was_changed_is_verified(data: st.DataObject) -> None:
    headers = signed()
    at = data.draw(st.integers(0, len(BODY) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != BODY[at]))
    changed = BODY[:at] + bytes([byte]) + BODY[at + 1 :]
    assert isinstance(VERIFIER.verify(headers, changed, NOW_S), Unverified)
    name = data.draw(st.sampled_from(sorted(headers)))
    value = data.draw(st.text(max_size=60).filter(lambda text: text.split(" ") != [headers[name]]))
    other = VERIFIER.verify(headers | {name: value}, BODY, NOW_S)
    assert isinstance(other, Unverified) or headers[SIGNATURE] in value.split(" ")


@pytest.mark.parametrize("name", [ID, TIMESTAMP, SIGNATURE])
def test_without_one_of_its_headers_nothing_is_verified(name: str) -> None:
    headers = {key: value for key, value in signed().items() if key != name}
    assert isinstance(VERIFIER.verify(headers, BODY, NOW_S), Unverified)


@pytest.mark.parametrize("away_s", [-REPLAY_WINDOW_S - 1, REPLAY_WINDOW_S + 1, 1e9])
def test_what_was_signed_at_another_time_is_not_replayed(away_s: float) -> None:
    assert isinstance(VERIFIER.verify(signed(at_s=NOW_S), BODY, NOW_S + away_s), Unverified)


@pytest.mark.parametrize("away_s", [-REPLAY_WINDOW_S, REPLAY_WINDOW_S])
def test_clocks_may_differ_by_the_window(away_s: float) -> None:
    assert isinstance(VERIFIER.verify(signed(at_s=NOW_S), BODY, NOW_S + away_s), Verified)


def test_while_a_secret_replaces_another_both_are_believed() -> None:
    both = SimulatorWebhooks([OTHER, SECRET])
    for secret in (SECRET, OTHER):
        assert isinstance(both.verify(signed(secret), BODY, NOW_S), Verified)
    assert isinstance(VERIFIER.verify(signed(OTHER), BODY, NOW_S), Unverified)
    doubly = signed() | {SIGNATURE: f"{signed(OTHER)[SIGNATURE]} {signed()[SIGNATURE]}"}
    assert isinstance(VERIFIER.verify(doubly, BODY, NOW_S), Verified)


def test_an_id_that_can_be_no_key_is_refused_though_it_was_signed() -> None:
    assert isinstance(VERIFIER.verify(signed(event_id="evt 1"), BODY, NOW_S), Malformed)
    assert [is_event_id(text) for text in ("", "e" * 255, "e" * 256, "evt\n", "é")] == [
        False,
        True,
        False,
        False,
        False,
    ]


def test_a_body_that_is_no_text_is_nobodys_word() -> None:
    assert isinstance(VERIFIER.verify(signed(), b"\xff", NOW_S), Unverified)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_é"])
def test_a_secret_that_is_none_is_refused_without_being_told(secret: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        SimulatorWebhooks([secret])
    assert not secret or secret.removeprefix("whsec_") == "" or secret not in str(refused.value)
