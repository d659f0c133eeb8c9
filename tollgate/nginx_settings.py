"""What nginx is told of whoever is behind its connections: how often an address may ask, who may name one.

Read once from the environment and the file, like every part's settings; everything is off by default.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from tollgate.nginx_config import AddressLimits, AddressRate
from tollgate.settings import TollgateSettings, load


def _network(text: str) -> str:
    return str(ipaddress.ip_network(text))


class LimitsSettings(BaseModel):
    """Rates are requests a second, 0 for no limit; a burst is what may come at once."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    address_post_per_second: Annotated[float, Field(ge=0, le=1_000_000)] = 0
    address_post_burst: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    address_get_per_second: Annotated[float, Field(ge=0, le=1_000_000)] = 0
    address_get_burst: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    # Requests of one address that are under way at once, slowly sent ones among them; 0 for no limit.
    address_in_flight_max: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    # Networks of load balancers, whose X-Forwarded-For is believed.
    trusted_proxies: tuple[Annotated[str, AfterValidator(_network)], ...] = ()


class NginxLimitsSettings(TollgateSettings):
    limits: LimitsSettings = LimitsSettings()


def address_limits() -> AddressLimits:
    """Raises ConfigurationError naming every wrong key."""
    limits = load(NginxLimitsSettings).limits
    return AddressLimits(
        post=_rate(limits.address_post_per_second, limits.address_post_burst),
        get=_rate(limits.address_get_per_second, limits.address_get_burst),
        in_flight_max=limits.address_in_flight_max or None,
        trusted_proxies=limits.trusted_proxies,
    )


def _rate(per_second: float, burst: int) -> AddressRate | None:
    return AddressRate(per_second, burst) if per_second else None
