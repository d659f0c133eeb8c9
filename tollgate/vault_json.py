"""Customers and payment methods as clients see them."""

from __future__ import annotations

from typing import Any

from tollgate.clock import rfc3339
from tollgate.v1.ledger_pb2 import Customer, PaymentMethod


def customer_document(customer: Customer) -> dict[str, Any]:
    """JSON-ready, every field present, an absent one null."""
    return {
        "id": customer.id,
        "name": customer.name or None,
        "email": customer.email or None,
        "description": customer.description or None,
        "metadata": {entry.key: entry.value for entry in customer.metadata},
        "created_at": rfc3339(customer.created_at_us),
    }


def payment_method_document(method: PaymentMethod) -> dict[str, Any]:
    """The same. The token is the one that the merchant sent."""
    return {
        "id": method.id,
        "token": method.token,
        "customer_id": method.customer_id or None,
        "description": method.description or None,
        "metadata": {entry.key: entry.value for entry in method.metadata},
        "created_at": rfc3339(method.created_at_us),
    }
