"""The simulator over HTTP, a real process: its answers, its ledger, its faults and its death."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.fixtures.simulator import RunningSimulator

RETRY_S = 0.005


class _Caller:
    """Calls the simulator as a PSP client would; (status, body)."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session

    async def post(self, path: str, key: str | None, body: object) -> tuple[int, bytes]:
        headers = {} if key is None else {"Idempotency-Key": key}
        async with self._session.post(self._url + path, json=body, headers=headers) as response:
            return response.status, await response.read()

    async def charge(self, name: str, payment_method: str = "pm_ok", **more: object) -> tuple[int, bytes]:
        return await self.post("/v1/charges", f"key-{name}", order(name, payment_method, **more))

    async def get(self, path: str) -> tuple[int, Any]:
        async with self._session.get(self._url + path) as response:
            return response.status, await response.json()


def order(name: str, payment_method: str = "pm_ok", **more: object) -> dict[str, object]:
    return {
        "checkout_id": name,
        "merchant": "demo",
        "amount": 1234,
        "currency": "EUR",
        "payment_method": payment_method,
        "reference": f"demo/{name}",
    } | more


@pytest.fixture
async def caller(simulator: RunningSimulator) -> AsyncIterator[_Caller]:
    async with aiohttp.ClientSession() as session:
        yield _Caller(simulator.url, session)


def _effects_of(ledger: dict[str, Any]) -> Counter[str]:
    return Counter(effect["checkout_id"] for effect in ledger["effects"])


async def test_a_charge_is_in_the_ledger_as_documented(simulator: RunningSimulator, caller: _Caller) -> None:
    assert (await caller.charge("one"))[0] == 200
    ledger = await simulator.ledger()
    (effect,) = ledger["effects"]
    (call,) = ledger["calls"]
    assert effect | {"id": "", "at": ""} == {
        "id": "",
        "type": "charge",
        "checkout_id": "one",
        "merchant": "demo",
        "idempotency_key": "key-one",
        "amount": 1234,
        "currency": "EUR",
        "at": "",
    }
    assert call | {"at": ""} == {
        "at": "",
        "method": "POST",
        "path": "/v1/charges",
        "idempotency_key": "key-one",
        "status": 200,
    }
    assert call["at"] <= effect["at"]
    assert len(effect["at"]) == len("2026-11-21T10:00:00.000001Z")


async def test_a_replay_is_byte_for_byte_also_at_once_and_after_a_kill(
    simulator: RunningSimulator, caller: _Caller
) -> None:
    together = await asyncio.gather(*(caller.charge("one", "pm_slow_200") for _ in range(8)))
    await simulator.kill()
    await simulator.start_again()
    later = await caller.charge("one", "pm_slow_200")
    assert set(together) == {later}
    assert _effects_of(await simulator.ledger()) == {"one": 1}


async def test_a_key_used_for_another_body_is_422_also_while_the_first_runs(
    simulator: RunningSimulator, caller: _Caller
) -> None:
    first = asyncio.create_task(caller.charge("one", "pm_slow_500"))
    await simulator.until(lambda ledger: bool(ledger["calls"]))
    during = await caller.charge("one", "pm_slow_500", amount=9)
    assert (await first)[0] == 200
    after = await caller.charge("one", "pm_slow_500", amount=9)
    assert (during[0], after[0]) == (422, 422)
    assert _effects_of(await simulator.ledger()) == {"one": 1}


async def test_the_table_of_payment_methods(simulator: RunningSimulator, caller: _Caller) -> None:
    assert (await caller.charge("declined", "pm_declined"))[0] == 402
    assert [(await caller.charge("twice", "pm_unavailable_2"))[0] for _ in range(3)] == [503, 503, 200]
    with pytest.raises(aiohttp.ClientError):
        await caller.charge("reset", "pm_reset")
    assert (await caller.charge("reset", "pm_reset"))[0] == 200
    assert (await caller.charge("other", "anything else"))[0] == 200
    assert _effects_of(await simulator.ledger()) == {"twice": 1, "reset": 1, "other": 1}


async def test_a_lost_answer_is_executed_and_answered_to_the_second_send(
    simulator: RunningSimulator, caller: _Caller
) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await caller.charge("lost", "pm_lost")
    assert (await caller.charge("lost", "pm_lost"))[0] == 200
    ledger = await simulator.ledger()
    assert _effects_of(ledger) == {"lost": 1}
    assert [call["status"] for call in ledger["calls"]] == [0, 200]


async def test_unavailable_counts_over_a_kill(simulator: RunningSimulator, caller: _Caller) -> None:
    assert (await caller.charge("one", "pm_unavailable_2"))[0] == 503
    await simulator.kill()
    await simulator.start_again()
    assert [(await caller.charge("one", "pm_unavailable_2"))[0] for _ in range(2)] == [503, 200]


async def test_errors_come_with_and_without_effect_and_a_replay_tells_which(
    simulator: RunningSimulator, caller: _Caller
) -> None:
    await simulator.set_scenario(error_rate=1)
    assert {(await caller.charge(f"order-{n}"))[0] for n in range(4)} == {500}
    assert len((await simulator.ledger())["effects"]) == 2
    await simulator.set_scenario(error_rate=0)
    assert {(await caller.charge(f"order-{n}"))[0] for n in range(4)} == {200}
    assert _effects_of(await simulator.ledger()) == {f"order-{n}": 1 for n in range(4)}


async def test_down_has_no_effect_and_leaves_the_own_pages_up(
    simulator: RunningSimulator, caller: _Caller
) -> None:
    await simulator.set_scenario(down=True)
    with pytest.raises(aiohttp.ClientError):
        await caller.charge("one")
    ledger = await simulator.ledger()
    assert ledger["effects"] == []
    assert [call["status"] for call in ledger["calls"]] == [0]


@pytest.mark.parametrize("knob", ["lost_answer_rate", "reset_rate"])
async def test_a_lost_answer_and_a_reset_have_their_effect(
    simulator: RunningSimulator, caller: _Caller, knob: str
) -> None:
    await simulator.set_scenario(**{knob: 1.0})
    with pytest.raises((aiohttp.ClientError, TimeoutError)):
        async with asyncio.timeout(0.5):
            await caller.charge("one")
    assert _effects_of(await simulator.ledger()) == {"one": 1}


async def test_since_and_limit_cut_the_ledger(simulator: RunningSimulator, caller: _Caller) -> None:
    for name in ("one", "two", "three"):
        await caller.charge(name)
    _, everything = await caller.get("/_ledger")
    second = everything["effects"][1]["at"]
    _, cut = await caller.get(f"/_ledger?since={second}&limit=1")
    assert [effect["checkout_id"] for effect in cut["effects"]] == ["two"]
    assert cut["calls"] == [call for call in everything["calls"] if call["at"] >= second][:1]
    assert (await caller.get("/_ledger?since=yesterday"))[0] == 400
    assert (await caller.get("/_ledger?limit=-1"))[0] == 400


async def test_wrong_calls_are_refused_clearly_and_without_effect(
    simulator: RunningSimulator, caller: _Caller
) -> None:
    assert (await caller.post("/v1/charges", None, order("one")))[0] == 400
    assert (await caller.post("/v1/charges", "ключ", order("one")))[0] == 400
    status, body = await caller.charge("one", amount=1.5, currency="EU", extra=1)
    assert status == 400
    assert all(name in body for name in (b"amount", b"currency", b"extra"))
    assert (await caller.charge("one", amount=100_000_000_000))[0] == 400
    assert (await caller.get("/v1/charges/ch_unknown"))[0] == 404
    assert (await caller.get("/v1/charges"))[0] == 400
    assert (await caller.post("/v1/refunds", "k", {}))[0] == 404
    assert (await simulator.ledger())["effects"] == []
    assert (await caller.charge("one"))[0] == 200


async def test_an_authorization_is_captured_once_and_looked_up_by_reference(
    simulator: RunningSimulator, caller: _Caller
) -> None:
    await caller.charge("one", capture="manual")
    _, found = await caller.get("/v1/charges?reference=demo/one")
    (charge,) = found["data"]
    path = f"/v1/charges/{charge['id']}"
    assert (await caller.post(f"{path}/capture", "c1", {"amount": 1000}))[0] == 200
    assert (await caller.post(f"{path}/capture", "c1", {"amount": 1000}))[0] == 200
    assert (await caller.post(f"{path}/capture", "c2", {}))[0] == 409
    assert (await caller.post(f"{path}/refunds", "r1", {"amount": 400}))[0] == 200
    _, charge = await caller.get(path)
    assert (charge["captured_amount"], charge["refunded_amount"]) == (1000, 400)
    types = [(effect["type"], effect["amount"]) for effect in (await simulator.ledger())["effects"]]
    assert types == [("authorization", 1234), ("capture", 1000), ("refund", 400)]


async def test_sigterm_ends_it_at_once_while_an_answer_is_lost(
    simulator: RunningSimulator, caller: _Caller
) -> None:
    lost = asyncio.create_task(caller.charge("lost", "pm_lost"))
    await simulator.until(lambda ledger: bool(ledger["effects"]))
    assert await simulator.stop() == 0
    with pytest.raises(aiohttp.ClientError):
        await lost


@pytest.mark.fault
async def test_kill_9_under_load_keeps_every_answered_charge_once(simulator: RunningSimulator) -> None:
    seed = 20261121
    rng = random.Random(seed)
    answers: dict[str, set[bytes]] = {}
    stop = asyncio.Event()

    async def client(number: int, session: aiohttp.ClientSession) -> None:
        caller = _Caller(simulator.url, session)
        for turn in range(10_000):
            name = f"order-{number}-{turn}"
            while not stop.is_set():
                try:
                    status, body = await caller.charge(name)
                except aiohttp.ClientError:
                    await asyncio.sleep(RETRY_S)
                    continue
                assert status == 200
                answers.setdefault(name, set()).add(body)
                break
            if stop.is_set():
                return

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as clients:
        for number in range(16):
            clients.create_task(client(number, session))
        for _ in range(4):
            target = len(answers) + rng.randrange(50, 200)
            async with asyncio.timeout(20):
                while len(answers) < target:
                    await asyncio.sleep(RETRY_S)
            await simulator.kill()
            await simulator.start_again()
        stop.set()
    effects = _effects_of(await simulator.ledger())
    assert set(effects.values()) == {1}, f"doubled, seed {seed}"
    assert answers.keys() <= effects.keys(), f"lost, seed {seed}"
    assert len(answers) >= 200
    async with aiohttp.ClientSession() as session:
        caller = _Caller(simulator.url, session)
        for name in rng.sample(sorted(answers), 20):
            assert {(await caller.charge(name))[1]} == answers[name]
