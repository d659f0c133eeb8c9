"""Who may speak to this shard: the copy of the Ledger's merchants, and the development key from the settings.

API keys are known by their SHA-256 only. The copy is kept in the store, so that a shard that starts with the
Ledger down knows whom it knew. Until there is a first copy, an unknown key can't be called wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.errors import NotReady
from tollgate.ids import MERCHANT, api_key_hash
from tollgate.v1.ledger_pb2 import ListMerchantsResponse, Merchant


@dataclass(frozen=True, slots=True)
class Account:
    """A merchant that has shown its key."""

    merchant: str
    default_psp: str


class Merchants:
    """Look-ups are one hash; `load` replaces the copy."""

    def __init__(self, default_psp: str, development: tuple[str, str] | None) -> None:
        """`development` is (API key, merchant)."""
        self._default_psp = default_psp
        self._own: dict[bytes, Account] = {}
        if development is not None:
            key, merchant = development
            self._own[api_key_hash(key)] = Account(merchant, default_psp)
        self._accounts: dict[bytes, Account] = dict(self._own)
        self.copy: bytes | None = None

    def load(self, copy: bytes) -> None:
        """`copy` is a serialized ListMerchantsResponse. Raises DecodeError."""
        accounts = dict(self._own)
        for merchant in ListMerchantsResponse.FromString(copy).merchants:
            account = Account(merchant.id, merchant.default_psp or self._default_psp)
            accounts.update((key, account) for key in merchant.api_key_hashes)
        self._accounts = accounts
        self.copy = copy

    def find(self, api_key: str) -> Account | None:
        """None: certainly nobody's key. Raises NotReady when that can't be known yet."""
        account = self._accounts.get(api_key_hash(api_key))
        if account is None and self.copy is None:
            raise NotReady("This shard has not had its first copy of the merchants yet. Retry.")
        return account


def normalized(merchants: Iterable[Merchant]) -> bytes:
    """The same bytes for the same merchants, however ordered. Those with a wrong id are left out."""
    known = sorted(
        (merchant for merchant in merchants if MERCHANT.fullmatch(merchant.id)), key=lambda m: m.id
    )
    copies = [
        Merchant(id=m.id, default_psp=m.default_psp, api_key_hashes=sorted(m.api_key_hashes)) for m in known
    ]
    return ListMerchantsResponse(merchants=copies).SerializeToString(deterministic=True)
