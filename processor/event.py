"""A version of a payment as it is told: a CloudEvent for the world, a StatusUpdate for the shards. Pure.

CloudEvents 1.0, Kafka binding in binary mode
(https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md).
The id is the same for every delivery of a version, so that a consumer can tell a repeat. What is promised to
consumers is written down in docs/asyncapi.yaml.
"""

from __future__ import annotations

from typing import Final

import orjson

from processor.kafka.producer import Outgoing
from tollgate import topics
from tollgate.clock import rfc3339
from tollgate.ids import payment_key
from tollgate.payment_json import payment_document
from tollgate.v1.payment_pb2 import Payment
from tollgate.v1.shard_pb2 import StatusUpdate

SOURCE: Final = "/tollgate/payments"


def event_record(payment: Payment, event_type: str, operation_id: str | None = None) -> Outgoing:
    """`operation_id`: the capture, cancel or refund that the version is about."""
    key = payment_key(payment.merchant, payment.checkout_id)
    attributes = {
        "ce_specversion": "1.0",
        "ce_id": f"{key}/{payment.version}",
        "ce_source": SOURCE,
        "ce_type": event_type,
        "ce_time": rfc3339(payment.updated_at_us),
        "ce_subject": key,
        "ce_version": str(payment.version),
        "ce_operationid": operation_id,
        "ce_traceparent": payment.traceparent,
        "content-type": "application/json",
    }
    headers = [(name, value.encode()) for name, value in attributes.items() if value]
    return Outgoing(topics.EVENTS, key.encode(), orjson.dumps(payment_document(payment)), headers)


def status_record(payment: Payment, shard: int, now_us: int) -> Outgoing:
    """The full snapshot, to the partition that is the shard's."""
    update = StatusUpdate(payment=payment, published_at_us=now_us)
    key = payment_key(payment.merchant, payment.checkout_id).encode()
    return Outgoing(topics.STATUS, key, update.SerializeToString(), partition=shard)
