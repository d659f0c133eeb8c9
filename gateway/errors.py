"""What can go wrong inside a shard, as the receivers tell it apart: overload, storage, refused commands."""

from __future__ import annotations

from tollgate.errors import OperationalError, Overloaded, RejectedInput


class RingFull(Overloaded):
    """Every slot between the network and the disk is taken."""


class NoRoom(Overloaded):
    """The disk or the backlog has no room for a new payment; what is stored is still answered."""


class ProofsFull(Overloaded):
    """As many requests as may wait for Kafka's confirmation do so."""


class StoreBusy(Overloaded):
    """The store refused a write because it is behind with its own work. Nothing was written."""


class StoreFailed(OperationalError):
    """The store can't be trusted any more: what was written may or may not be there. Fatal at first sight."""

    code = "store_failed"


class NotReady(OperationalError):
    """This shard can't answer now, whatever the request says."""

    code = "not_ready"


class LedgerSilent(OperationalError):
    """No Ledger answers what only it can decide. It may have decided: the same again is safe."""

    code = "ledger_unavailable"


class WrongOpening(RejectedInput):
    """The caller speaks of another store, or of another opening of it, than the one that is open here."""

    code = "wrong_opening"


class BeyondDurable(RejectedInput):
    """The caller acknowledges or prunes what this store does not have on disk."""

    code = "beyond_durable"
