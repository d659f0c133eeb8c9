"""Adyen's notifications at a shard alone: on its disk item by item before Adyen hears `[accepted]`."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import orjson

from tests.fixtures.adyen_double import HMAC_KEY, notification
from tests.fixtures.shard_process import ShardProcess

ITEM = {
    "amount": {"currency": "EUR", "value": 1130},
    "eventCode": "AUTHORISATION",
    "merchantAccountCode": "TollgateECOM",
    "merchantReference": f"{'a1' * 32}-auto",
    "pspReference": "7914073381342284",
    "reason": "033899:1111:03/2030",
    "success": "true",
    "additionalData": {"cardSummary": "1111", "shopperEmail": "s.hopper@shop.example"},
}
REFUND = {**ITEM, "eventCode": "REFUND", "pspReference": "8825408195409505"}


async def test_each_item_is_a_change_and_a_forged_one_keeps_all_out(tmp_path: Path) -> None:
    keys = tmp_path / "adyen-hmac-keys"
    keys.write_text(f"{'CD' * 32}\n{HMAC_KEY}\n")
    shard = ShardProcess(tmp_path)
    shard.start(TOLLGATE_PSP__ADYEN__WEBHOOK_SECRET_FILE=str(keys))
    forged = notification(ITEM, REFUND).replace(b'"value":1130', b'"value":1131', 1)
    try:
        async with aiohttp.ClientSession() as session:
            await shard.ready(session)
            url = f"{shard.url}/v1/webhooks/adyen"
            async with session.post(url, data=forged) as refused:
                assert (refused.status, (await refused.json())["code"]) == (401, "unauthorized")
            async with session.post(url, data=notification(ITEM, REFUND)) as taken:
                assert (taken.status, await taken.read()) == (200, b"[accepted]")
            shard.kill()
            shard.start(TOLLGATE_PSP__ADYEN__WEBHOOK_SECRET_FILE=str(keys))
            await shard.ready(session)
        received = [change.webhook for change in await shard.changes()]
        assert [(webhook.psp, webhook.event_id) for webhook in received] == [
            ("adyen", "AUTHORISATION:7914073381342284:true"),
            ("adyen", "REFUND:8825408195409505:true"),
        ]
        assert [orjson.loads(webhook.body)["amount"]["value"] for webhook in received] == [1130, 1130]
        assert not any(secret in webhook.body for webhook in received for secret in (b"1111", b"s.hopper"))
        assert HMAC_KEY not in shard.log()
    finally:
        shard.kill()
