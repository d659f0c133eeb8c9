"""A version of a payment as it is told: a CloudEvent for the world, a StatusUpdate for the shards. Pure.

CloudEvents 1.0, Kafka binding in binary mode
(https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md).
The id is the same for every delivery of a version, so that a consumer can tell a repeat. What is promised to
consumers is written down in docs/asyncapi.yaml.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import orjson

from processor.kafka.producer import Outgoing
from tollgate import topics
from tollgate.ids import payment_key
from tollgate.payment_json import payment_document
from tollgate.v1.payment_pb2 import Payment
from tollgate.v1.shard_pb2 import StatusUpdate
from tollgate.varint import varint

SOURCE: Final = "/tollgate/payments"
_ALIKE: Final = (  # of every event
    ("ce_specversion", b"1.0"),
    ("ce_source", SOURCE.encode()),
    ("content-type", b"application/json"),
)
_PAYMENT_FIELD: Final = bytes([StatusUpdate.PAYMENT_FIELD_NUMBER << 3 | 2])


def event_record(payment: Payment, event_type: str, operation_id: str | None = None) -> Outgoing:
    """`operation_id`: the capture, cancel or refund that the version is about."""
    document = payment_document(payment)
    key = payment_key(payment.merchant, payment.checkout_id).encode()
    version = b"%d" % document["version"]
    headers = [
        *_ALIKE,
        ("ce_id", b"%b/%b" % (key, version)),
        ("ce_type", event_type.encode()),
        ("ce_time", document["updated_at"].encode()),
        ("ce_subject", key),
        ("ce_version", version),
    ]
    if operation_id:
        headers.append(("ce_operationid", operation_id.encode()))
    if traceparent := payment.traceparent:
        headers.append(("ce_traceparent", traceparent.encode()))
    return Outgoing(topics.EVENTS, key, orjson.dumps(document), headers)


def status_record(key: bytes, snapshot: bytes, shard: int, now_us: int) -> Outgoing:
    """A `Payment` as it is serialized, to the partition that is the shard's. It is not read again for it: a
    message within a message is its length and its bytes.
    """
    value = b"%b%b%b%b" % (_PAYMENT_FIELD, varint(len(snapshot)), snapshot, _published(now_us))
    return Outgoing(topics.STATUS, key, value, partition=shard)


@lru_cache(maxsize=1)  # all of a pass have one time
def _published(now_us: int) -> bytes:
    return StatusUpdate(published_at_us=now_us).SerializeToString()
