"""A reload takes the new ring and drops nothing: not what is sent on a connection that was kept either."""

from __future__ import annotations

import asyncio
import os
import signal
from http.client import HTTPConnection
from pathlib import Path

from tests.fixtures.nginx import PretendedShards, running_nginx
from tests.fixtures.waiting import wait_until
from tollgate import nginx_config
from tollgate.local.nginx import served_ring, workers

KEYS = [f"checkout_{n:04d}" for n in range(20)]


def post(client: HTTPConnection, key: str) -> tuple[int, bytes, str | None]:
    client.request("POST", "/v1/payments", b"{}", {"X-PAYMENT-CHECKOUT-ID": key})
    answer = client.getresponse()
    return answer.status, answer.read(), answer.headers["connection"]


def test_kept_connections_are_answered_once_more_and_new_ones_go_by_the_new_ring(tmp_path: Path) -> None:
    with PretendedShards(3) as shards:
        whole = shards.ring
        two = whole.model_copy(update={"shards": whole.shards[:2]})
        with running_nginx(tmp_path, two) as settings:
            master = int((settings.folder / "nginx.pid").read_text())
            kept = {key: HTTPConnection(settings.listen, timeout=10) for key in KEYS}
            for key, client in kept.items():
                assert post(client, key)[:2] == (200, two.owner(key).name.encode())
            before, _ = workers(master)
            assert asyncio.run(served_ring(settings.listen)) == 1

            nginx_config.write(settings, whole.model_copy(update={"version": 2}))
            os.kill(master, signal.SIGHUP)
            wait_until(lambda: not before & workers(master)[0], "the old workers accept nothing more")

            assert asyncio.run(served_ring(settings.listen)) == 2
            assert workers(master)[1] == before, "they wait for what their connections bring"
            for key, client in kept.items():
                assert post(client, key) == (200, two.owner(key).name.encode(), "close")
                client.close()
            wait_until(lambda: not workers(master)[1], "the old workers are gone")
            for key in KEYS:
                client = HTTPConnection(settings.listen, timeout=10)
                assert post(client, key)[:2] == (200, whole.owner(key).name.encode())
                client.close()
            assert {whole.owner(key) for key in KEYS} == set(whole.shards)
