"""Braintree's API for one connection, through its SDK: sales with a vaulted method, refunds, look-ups."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from braintree.transaction_search import TransactionSearch

from providers.base import (
    ChargeRequest,
    ChargeResult,
    ClientTraits,
    Lookup,
    ProviderUnavailable,
    RefundRequest,
    Settles,
)
from providers.braintree.config import GUIDE, merchant_accounts
from providers.braintree.exchange import Access, Exchange
from providers.braintree.results import refund_result, sale_result
from providers.guide import settings_read
from providers.wire.api import best, errored
from recovery_site.common.errors import InvalidInput
from recovery_site.common.money import to_decimal

# "Must be made before 30 days has elapsed since the initial request finished" (apiRequestKey).
KEY_TTL = timedelta(days=30)
# The key was used for another request, is at work, or belongs to a request whose end Braintree does not know.
_UNCERTAIN_CODES = frozenset({"915232", "915233", "915234", "915235"})
# A sale can only be refunded once it has settled, which takes a day or so.
_UNSETTLED = "91506"
_SETTLING_TAKES = timedelta(hours=12)


class BraintreeClient:
    """Config: the settings of the guide.

    A merchant account has one currency and a sale names none, so a currency without its account is never charged.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        settings = settings_read(GUIDE, config)
        self._accounts = merchant_accounts(settings["merchant_accounts"])
        timeout = float(settings["timeout_seconds"])
        self._exchange = Exchange(
            Access(
                merchant_id=settings["merchant_id"],
                public_key=settings["public_key"],
                private_key=settings["private_key"],
                environment=settings["environment"],
                base_url=settings["base_url"] or "",
                timeout_seconds=timeout,
            )
        )
        self._gateway = self._exchange.gateway
        self.traits = ClientTraits(
            key_ttl=KEY_TTL,
            # A search index; Braintree does not say how soon it knows a transaction.
            lookup=Lookup.EVENTUAL,
            settles=Settles.NOW,
            timeout_seconds=timeout,
        )

    def check(self) -> str:
        """Read the merchant accounts that are configured, and compare their currencies."""
        for currency, account in self._accounts.items():
            found = self._account(account)
            if found is None:
                raise ProviderUnavailable(f"Braintree has no merchant account {account}; correct merchant_accounts.")
            told = getattr(found, "currency_iso_code", None)
            if told != currency:
                raise ProviderUnavailable(
                    f"Braintree's merchant account {account} charges {told}, not {currency}; correct merchant_accounts."
                )
        return f"Braintree answers for {', '.join(sorted(self._accounts))}."

    def _account(self, account: str) -> Any:
        return self._exchange.read(lambda: self._gateway.merchant_account.find(account))

    def charge(self, request: ChargeRequest) -> ChargeResult:
        """One sale of a vaulted method that the merchant initiates; see ProviderClient.charge."""
        account = self._accounts.get(request.currency)
        if account is None:
            return errored("currency_not_configured", raw={"currency": request.currency})
        params = {
            "amount": f"{to_decimal(request.amount_minor, request.currency):f}",
            "payment_method_token": request.token,
            "merchant_account_id": account,
            "order_id": request.reference,
            "transaction_source": "recurring",
            "options": {"submit_for_settlement": True},
            "api_request_key": request.idempotency_key,
        }
        return self._write(lambda: self._gateway.transaction.sale(params), sale_result, request, request.token)

    def charge_get(self, provider_id: str) -> ChargeResult | None:
        found = self._exchange.read(lambda: self._gateway.transaction.find(provider_id))
        return None if found is None else _understood(sale_result, found)

    def charge_find(self, reference: str) -> ChargeResult | None:
        """Search for the order id that is our reference; None proves nothing, as it is a search index."""
        return best([_understood(sale_result, found) for found in self._found(reference, "sale")])

    def charges_list(self, created_after: datetime) -> Iterator[ChargeResult]:
        """Newest first, read page by page. Raises ProviderUnavailable for an unreadable one after all others."""
        search = TransactionSearch
        since = created_after.astimezone(UTC).replace(microsecond=0)
        found = self._exchange.read(
            lambda: self._gateway.transaction.search(search.created_at >= since, search.type == "sale").items
        )
        unreadable = ""
        while found is not None:
            transaction = self._exchange.read(lambda: next(found, None))
            if transaction is None:
                break
            try:
                result = sale_result(transaction)
            except InvalidInput as error:
                unreadable = error.message
                continue
            yield result
        if unreadable:
            raise ProviderUnavailable(f"At least one sale at Braintree could not be read. {unreadable}")

    def refund(self, request: RefundRequest) -> ChargeResult:
        """Refund a settled sale, in whole or in part; see ProviderClient.refund."""
        params = {
            "amount": f"{to_decimal(request.amount_minor, request.currency):f}",
            "order_id": request.reference,
            "api_request_key": request.idempotency_key,
        }
        return self._write(
            lambda: self._gateway.transaction.refund(request.charge_id, params), refund_result, request, ""
        )

    def refund_get(self, provider_id: str) -> ChargeResult | None:
        found = self._exchange.read(lambda: self._gateway.transaction.find(provider_id))
        return None if found is None else _understood(refund_result, found)

    def refund_find(self, reference: str) -> ChargeResult | None:
        return best([_understood(refund_result, found) for found in self._found(reference, "credit")])

    def _found(self, reference: str, kind: str) -> list[Any]:
        search = TransactionSearch
        found = self._exchange.read(
            lambda: list(self._gateway.transaction.search(search.order_id == reference, search.type == kind).items)
        )
        return [one for one in found or [] if getattr(one, "order_id", None) == reference]

    def _write(self, call: Any, read: Any, request: ChargeRequest | RefundRequest, token: str) -> ChargeResult:
        answer = self._exchange.write(call)
        if isinstance(answer, ChargeResult):
            return answer
        transaction = getattr(answer, "transaction", None)
        if transaction is None:
            return self._refused(answer)
        try:
            result: ChargeResult = read(transaction)
        except InvalidInput as error:
            raise self._exchange.uncertain(f"answered with something impossible: {error.message}") from None
        expected = {"reference": request.reference, "currency": request.currency, "token": token or result.token}
        wrong = [name for name, value in expected.items() if getattr(result, name) not in ("", value)]
        if wrong:
            raise self._exchange.uncertain(f"answered about another {' and '.join(wrong)}")
        return result

    def _refused(self, answer: Any) -> ChargeResult:
        """A request that Braintree's validation stopped; what its codes say of the key is not knowing."""
        codes = [str(error.code) for error in answer.errors.deep_errors]
        if not codes or not _UNCERTAIN_CODES.isdisjoint(codes):
            raise self._exchange.uncertain(f"refused without a proof that nothing happened ({', '.join(codes)})")
        if _UNSETTLED in codes:
            return errored("not_settled", raw={"codes": codes}, retry_after=_SETTLING_TAKES)
        return errored(codes[0], raw={"codes": codes})


def _understood(read: Any, transaction: Any) -> ChargeResult:
    try:
        result: ChargeResult = read(transaction)
    except InvalidInput as error:
        raise ProviderUnavailable(error.message) from None
    return result
