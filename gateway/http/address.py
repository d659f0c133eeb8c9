"""What every server says of an address that it can't have."""

from __future__ import annotations

from tollgate.errors import ConfigurationError


def address_taken(address: tuple[str, int], error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"{address[0]}:{address[1]} can't be listened on: {error.strerror}. Operator action: end what "
        "listens there, or set TOLLGATE_SHARD__HTTP."
    )
