"""POST /v1/webhooks/{psp}: a PSP's word, taken in by any shard.

In this order: is there such a PSP here, may this address speak for it, is the shard able to store, is the
body within bounds, is it the PSP's own word and of now; then each event becomes a change in the shard's log,
and only when that is on disk the PSP hears 200. All else makes it deliver again. Kafka, Postgres and the
processors are not asked; a repeat is stored again and told apart by the processor's inbox.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from starlette.routing import Route

from gateway.committer import Committer
from gateway.errors import NoRoom
from gateway.health import Health
from gateway.http.cold import cold_route
from gateway.http.message import Headers, Request, Response
from gateway.http.payments import BODY_BYTES_MAX
from gateway.http.problems import Problem
from gateway.planner import WebhookReceipt
from tollgate.clock import Clock
from tollgate.telemetry import traceparent_or_new
from tollgate.webhooks.interface import Malformed, Unverified, WebhookVerifier

PATH: Final = "/v1/webhooks/{psp}"
# nginx overwrites it on this path with the address that it speaks to (nginx/nginx.conf.j2): behind it, what a
# sender writes there is never seen.
ADDRESS_HEADER: Final = "x-real-ip"
_CHALLENGE: Final = (("www-authenticate", "Signature"),)

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """Without `sources` a PSP may call from anywhere."""

    verifier: WebhookVerifier
    sources: tuple[Network, ...] = ()


class WebhookHandlers:
    def __init__(
        self, committer: Committer, health: Health, clock: Clock, endpoints: Mapping[str, WebhookEndpoint]
    ) -> None:
        self._committer = committer
        self._health = health
        self._clock = clock
        self._endpoints = endpoints

    def route(self) -> Route:
        return cold_route("POST", PATH, "webhook", self.receive)

    async def receive(self, request: Request, named: Mapping[str, str]) -> Response:
        """Durable when it returns. Raises Problem, NotReady and Overloaded."""
        psp = named["psp"]
        endpoint = self._endpoints.get(psp)
        if endpoint is None:
            raise Problem("not_found", "No webhooks of a PSP of this name are taken here.")
        _check_source(endpoint.sources, request.headers)
        self._health.check_writable()
        if self._health.refusal is not None:
            raise NoRoom(self._health.refusal)
        if request.body is None:
            raise Problem("payload_too_large", f"A body has at most {BODY_BYTES_MAX} bytes.")
        now_us = self._clock.now_us()
        verified = endpoint.verifier.verify(request.headers, request.body, now_us / 1e6)
        match verified:
            case Unverified(reason):
                raise Problem("unauthorized", reason, headers=_CHALLENGE)
            case Malformed(reason):
                raise Problem("invalid_request", reason)
        if verified.events:
            traceparent = traceparent_or_new(None)
            await self._committer.commit(WebhookReceipt(psp, verified.events, now_us, traceparent))
        content_type, body = endpoint.verifier.acknowledgement
        return Response(200, [("content-type", content_type), ("cache-control", "no-store")], body)


def _check_source(sources: tuple[Network, ...], headers: Headers) -> None:
    if sources and not _is_among(sources, headers.get_all(ADDRESS_HEADER)):
        raise Problem("forbidden", "This PSP's webhooks are not taken from this address.")


def _is_among(sources: tuple[Network, ...], told: list[str]) -> bool:
    """Nobody who is behind no proxy of ours is: there is no telling where he is."""
    try:
        [address] = map(ip_address, told)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return any(address.ipv4_mapped in network for network in sources)
    return any(address in network for network in sources)
