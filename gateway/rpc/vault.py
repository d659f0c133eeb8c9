"""What this shard asks of the Vault, which is served beside the Ledger."""

from __future__ import annotations

from gateway.rpc.ledger import CLIENT_TIMEOUT_S, LedgerClient
from tollgate.v1.ledger_pb2 import (
    CreateCustomerRequest,
    CreateCustomerResponse,
    CreatePaymentMethodRequest,
    CreatePaymentMethodResponse,
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
)


class VaultClient:
    """Over the Ledger client's channels. Asking a second target is safe: what is made has its key."""

    def __init__(self, ledger: LedgerClient) -> None:
        self._ask = ledger.ask_vault

    async def create_customer(self, request: CreateCustomerRequest) -> CreateCustomerResponse:
        return await self._ask(lambda vault: vault.CreateCustomer(request, timeout=CLIENT_TIMEOUT_S))

    async def find_customer(self, request: FindCustomerRequest) -> FindCustomerResponse:
        return await self._ask(lambda vault: vault.FindCustomer(request, timeout=CLIENT_TIMEOUT_S))

    async def list_customers(self, request: ListCustomersRequest) -> ListCustomersResponse:
        return await self._ask(lambda vault: vault.ListCustomers(request, timeout=CLIENT_TIMEOUT_S))

    async def create_payment_method(self, request: CreatePaymentMethodRequest) -> CreatePaymentMethodResponse:
        return await self._ask(lambda vault: vault.CreatePaymentMethod(request, timeout=CLIENT_TIMEOUT_S))

    async def find_payment_method(self, request: FindPaymentMethodRequest) -> FindPaymentMethodResponse:
        return await self._ask(lambda vault: vault.FindPaymentMethod(request, timeout=CLIENT_TIMEOUT_S))

    async def list_payment_methods(self, request: ListPaymentMethodsRequest) -> ListPaymentMethodsResponse:
        return await self._ask(lambda vault: vault.ListPaymentMethods(request, timeout=CLIENT_TIMEOUT_S))

    async def delete_payment_method(self, request: DeletePaymentMethodRequest) -> DeletePaymentMethodResponse:
        return await self._ask(lambda vault: vault.DeletePaymentMethod(request, timeout=CLIENT_TIMEOUT_S))
