"""The Vault service: customers and payment methods, for the shards. Postgres down: UNAVAILABLE.

What was made is durable before it is answered.
"""

from __future__ import annotations

import secrets
from typing import TypeAlias

import grpc

from processor.answering import RequestT, ResponseT, answered, bounded, refusal
from processor.operation_request import Refused
from processor.storage.database import Pool
from processor.storage.vault import (
    Created,
    Place,
    create_customer,
    create_payment_method,
    delete_payment_method,
    find_customer,
    find_payment_method,
    list_customers,
    list_payment_methods,
)
from processor.vault import CUSTOMER_PREFIX, METHOD_PREFIX
from tollgate.clock import Clock
from tollgate.v1.ledger_pb2 import (
    CreateCustomerRequest,
    CreateCustomerResponse,
    CreatePaymentMethodRequest,
    CreatePaymentMethodResponse,
    Customer,
    DeletePaymentMethodRequest,
    DeletePaymentMethodResponse,
    FindCustomerRequest,
    FindCustomerResponse,
    FindPaymentMethodRequest,
    FindPaymentMethodResponse,
    ListCustomersRequest,
    ListCustomersResponse,
    ListPaymentMethodsRequest,
    ListPaymentMethodsResponse,
    PaymentMethod,
    VaultPlace,
)
from tollgate.v1.ledger_pb2_grpc import VaultServicer

# Quoted: at run time the class takes no parameters.
Context: TypeAlias = "grpc.aio.ServicerContext[RequestT, ResponseT]"


class VaultService(VaultServicer):
    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock

    async def CreateCustomer(
        self, request: CreateCustomerRequest, context: Context[CreateCustomerRequest, CreateCustomerResponse]
    ) -> CreateCustomerResponse:
        wanted = Customer()
        wanted.CopyFrom(request.customer)
        wanted.id, wanted.created_at_us = _new_id(CUSTOMER_PREFIX), self._clock.now_us()
        making = create_customer(self._pool, request.merchant, wanted, request.idempotency_key)
        match await answered(context, making):
            case Refused() as refused:
                return CreateCustomerResponse(refusal=refusal(refused))
            case Created(thing):
                return CreateCustomerResponse(created=thing)
            case known:
                return CreateCustomerResponse(known=known.thing)

    async def FindCustomer(
        self, request: FindCustomerRequest, context: Context[FindCustomerRequest, FindCustomerResponse]
    ) -> FindCustomerResponse:
        found = await answered(context, find_customer(self._pool, request.merchant, request.id))
        return FindCustomerResponse(customer=found)

    async def ListCustomers(
        self, request: ListCustomersRequest, context: Context[ListCustomersRequest, ListCustomersResponse]
    ) -> ListCustomersResponse:
        after = _place(request.after) if request.HasField("after") else None
        listing = list_customers(self._pool, request.merchant, bounded(request.limit), after)
        customers, following = await answered(context, listing)
        return ListCustomersResponse(customers=customers, next=_told(following))

    async def CreatePaymentMethod(
        self,
        request: CreatePaymentMethodRequest,
        context: Context[CreatePaymentMethodRequest, CreatePaymentMethodResponse],
    ) -> CreatePaymentMethodResponse:
        wanted = PaymentMethod()
        wanted.CopyFrom(request.payment_method)
        wanted.id, wanted.created_at_us = _new_id(METHOD_PREFIX), self._clock.now_us()
        making = create_payment_method(self._pool, request.merchant, wanted, request.idempotency_key)
        match await answered(context, making):
            case Refused() as refused:
                return CreatePaymentMethodResponse(refusal=refusal(refused))
            case Created(thing):
                return CreatePaymentMethodResponse(created=thing)
            case known:
                return CreatePaymentMethodResponse(known=known.thing)

    async def FindPaymentMethod(
        self,
        request: FindPaymentMethodRequest,
        context: Context[FindPaymentMethodRequest, FindPaymentMethodResponse],
    ) -> FindPaymentMethodResponse:
        found = await answered(context, find_payment_method(self._pool, request.merchant, request.id))
        return FindPaymentMethodResponse(payment_method=found)

    async def ListPaymentMethods(
        self,
        request: ListPaymentMethodsRequest,
        context: Context[ListPaymentMethodsRequest, ListPaymentMethodsResponse],
    ) -> ListPaymentMethodsResponse:
        after = _place(request.after) if request.HasField("after") else None
        listing = list_payment_methods(
            self._pool, request.merchant, request.customer_id, bounded(request.limit), after
        )
        methods, following = await answered(context, listing)
        return ListPaymentMethodsResponse(payment_methods=methods, next=_told(following))

    async def DeletePaymentMethod(
        self,
        request: DeletePaymentMethodRequest,
        context: Context[DeletePaymentMethodRequest, DeletePaymentMethodResponse],
    ) -> DeletePaymentMethodResponse:
        deleting = delete_payment_method(self._pool, request.merchant, request.id, self._clock.now_us())
        return DeletePaymentMethodResponse(found=await answered(context, deleting))


def _new_id(prefix: str) -> str:
    return f"{prefix}{secrets.token_hex(12)}"


def _place(place: VaultPlace) -> Place:
    return Place(place.created_at_us, place.id)


def _told(place: Place | None) -> VaultPlace | None:
    return VaultPlace(created_at_us=place.created_at_us, id=place.id) if place else None
