"""Adyen's Checkout API for one connection: payments with a stored method, and refunds.

Adyen's API can be told things but not asked: there is no reading of a payment or a refund, by whatever id. What got
lost is sent again under its key, and refunds end by webhook.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from providers.adyen.amounts import to_adyen
from providers.adyen.config import GUIDE
from providers.adyen.results import payment_result, refund_result
from providers.base import ChargeRequest, ChargeResult, ClientTraits, Lookup, RefundRequest, Settles
from providers.guide import settings_read
from providers.wire.api import ProviderApi, errored
from providers.wire.reading import parts
from providers.wire.transport import Answer, transport
from recovery_site.common.errors import InvalidInput

VERSION = "v71"
# "Valid for a minimum period of 7 days after first submission": the shorter of what Adyen's pages say.
KEY_TTL = timedelta(days=7)
MAX_KEY = 64
# A request under the same key is still at work.
_IN_PROGRESS = "704"
_TYPES = {"card": "scheme", "sepa": "sepadirectdebit", "ach": "ach", "bacs": "directdebit_GB"}


class AdyenClient:
    """Config: the settings of the guide."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        settings = settings_read(GUIDE, config)
        self._account: str = settings["merchant_account"]
        timeout = float(settings["timeout_seconds"])
        self._target = (
            settings["base_url"] or _address(settings),
            {"X-API-Key": settings["api_key"], "Accept": "application/json"},
            timeout,
        )
        self.traits = ClientTraits(
            key_ttl=KEY_TTL,
            lookup=Lookup.NONE,
            settles=Settles.NOW,
            timeout_seconds=timeout,
            reads=False,
            lists=False,
        )

    def check(self) -> str:
        """Ask which payment methods there are: harmless, and every key that may charge may do it."""
        answer = self._api.ask("POST", "/paymentMethods", json={"merchantAccount": self._account})
        self._api.understood(answer, lambda body: parts(body, "paymentMethods"))
        return f"Adyen answers for the merchant account {self._account}."

    def charge(self, request: ChargeRequest) -> ChargeResult:
        """One payment that the merchant initiates with a stored method; see ProviderClient.charge."""
        try:
            value = to_adyen(request.amount_minor, request.currency)
        except InvalidInput:
            return errored("invalid_charge_amount", raw={})
        body = {
            "merchantAccount": self._account,
            "amount": {"value": value, "currency": request.currency},
            "reference": request.reference,
            "merchantOrderReference": request.metadata.get("invoice", ""),
            "paymentMethod": {
                "type": _TYPES.get(request.kind, request.kind),
                "storedPaymentMethodId": request.token,
            },
            "shopperReference": request.customer,
            "shopperInteraction": "ContAuth",
            "recurringProcessingModel": "Subscription",
            "metadata": {**request.metadata, "attempt": request.reference},
        }
        return self._write("/payments", body, request.idempotency_key, payment_result, request.reference)

    def charge_get(self, provider_id: str) -> ChargeResult | None:
        return None

    def charge_find(self, reference: str) -> ChargeResult | None:
        return None

    def charges_list(self, created_after: datetime) -> Iterable[ChargeResult]:
        return ()

    def refund(self, request: RefundRequest) -> ChargeResult:
        """Ask for a refund; that Adyen has received the request is all that is known until its webhook."""
        try:
            value = to_adyen(request.amount_minor, request.currency)
        except InvalidInput:
            return errored("invalid_charge_amount", raw={})
        body = {
            "merchantAccount": self._account,
            "amount": {"value": value, "currency": request.currency},
            "reference": request.reference,
        }
        path = f"/payments/{quote(request.charge_id, safe='')}/refunds"
        return self._write(path, body, request.idempotency_key, refund_result, request.reference)

    def refund_get(self, provider_id: str) -> ChargeResult | None:
        return None

    def refund_find(self, reference: str) -> ChargeResult | None:
        return None

    @property
    def _api(self) -> ProviderApi:
        return ProviderApi(
            "Adyen",
            transport(*self._target),
            _code,
            uncertain_codes=frozenset({_IN_PROGRESS}),
            echoes=False,
        )

    def _write(self, path: str, body: Mapping[str, Any], key: str, parse: Any, reference: str) -> ChargeResult:
        answer = self._api.write("POST", path, json=body, headers={"Idempotency-Key": key[:MAX_KEY]})
        if isinstance(answer, ChargeResult):
            return answer
        return self._api.result(answer, parse, reference=reference, currency=body["amount"]["currency"])


def _address(settings: Mapping[str, Any]) -> str:
    if settings["environment"] == "test":
        return f"https://checkout-test.adyen.com/{VERSION}"
    prefix = settings["live_prefix"]
    if not prefix or not all(part.isalnum() for part in prefix.split("-")):
        raise InvalidInput(
            "The Adyen connection needs live_prefix for live (the prefix from Developers, API URLs), or a base_url."
        )
    return f"https://{prefix}-checkout-live.adyenpayments.com/checkout/{VERSION}"


def _code(answer: Answer) -> str:
    """Adyen's error code; one of its doors has none but is itself the reason."""
    code = answer.body.get("errorCode") if answer.body else None
    if isinstance(code, str) and code:
        return code[:100]
    return "" if answer.status != HTTPStatus.NOT_FOUND else "not_found"
