"""The status table: the only place that says which status may follow which.

The names on the wire (HTTP, events, SQL) are the lower-case ones; the enum is protobuf's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from tollgate.v1.payment_pb2 import Status

if TYPE_CHECKING:
    StatusValue: TypeAlias = (
        Status.ValueType
    )  # protobuf enums are ints at run time; the stubs know them by this name
else:
    StatusValue = int

PENDING: Final = Status.STATUS_PENDING
PROCESSING: Final = Status.STATUS_PROCESSING
REQUIRES_ACTION: Final = Status.STATUS_REQUIRES_ACTION
AUTHORIZED: Final = Status.STATUS_AUTHORIZED
SUCCEEDED: Final = Status.STATUS_SUCCEEDED
PARTIALLY_REFUNDED: Final = Status.STATUS_PARTIALLY_REFUNDED
REFUNDED: Final = Status.STATUS_REFUNDED
FAILED: Final = Status.STATUS_FAILED
CANCELED: Final = Status.STATUS_CANCELED

TRANSITIONS: Final[dict[StatusValue, frozenset[StatusValue]]] = {
    PENDING: frozenset({PROCESSING, CANCELED, FAILED}),
    PROCESSING: frozenset({REQUIRES_ACTION, AUTHORIZED, SUCCEEDED, FAILED, CANCELED}),
    REQUIRES_ACTION: frozenset({PROCESSING, AUTHORIZED, SUCCEEDED, FAILED, CANCELED}),
    AUTHORIZED: frozenset({SUCCEEDED, CANCELED, FAILED}),
    SUCCEEDED: frozenset({PARTIALLY_REFUNDED, REFUNDED}),
    PARTIALLY_REFUNDED: frozenset({PARTIALLY_REFUNDED, REFUNDED}),
    REFUNDED: frozenset(),
    FAILED: frozenset(),
    CANCELED: frozenset(),
}

# A payment here still moves by itself: pollers are told to come again, and the shard keeps its record.
OPEN: Final = frozenset({PENDING, PROCESSING, REQUIRES_ACTION})
TERMINAL: Final = frozenset(status for status, following in TRANSITIONS.items() if not following)

NAME: Final[dict[StatusValue, str]] = {
    status: Status.Name(status).removeprefix("STATUS_").lower() for status in TRANSITIONS
}
BY_NAME: Final[dict[str, StatusValue]] = {name: status for status, name in NAME.items()}


def is_legal(before: StatusValue, after: StatusValue) -> bool:
    return after in TRANSITIONS[before]
