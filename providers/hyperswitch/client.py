"""Hyperswitch's API for one connection: payments with a stored method, and refunds.

The payment's and the refund's id are ours, made from our reference: Hyperswitch makes neither twice, whatever became
of the first answer, and a look-up under that id is certain.
"""

import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from providers.base import ChargeRequest, ChargeResult, ClientTraits, Lookup, RefundRequest, Settles
from providers.guide import settings_read
from providers.hyperswitch.config import GUIDE
from providers.hyperswitch.facts import REFERENCE_KEY
from providers.hyperswitch.results import NEEDS_ACTION, payment_result, refund_result
from providers.wire.api import ProviderApi
from providers.wire.reading import RecordMalformed, parts
from providers.wire.transport import Answer, transport

# The ids never end; the key in the header is held to what everybody promises.
KEY_TTL = timedelta(hours=24)
_DUPLICATE = "HE_01"
_ABSENT = "HE_02"
_CANCEL_SHARE = 0.2
_PAGE = 100
_UNDECIDED = frozenset({"requires_payment_method", "requires_confirmation"})
# Two days are a page or many: refuse to walk for ever.
_MOST_PAGES = 1000


class HyperswitchClient:
    """Config: the settings of the guide."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        settings = settings_read(GUIDE, config)
        self._profile: str | None = settings["profile_id"]
        total = float(settings["timeout_seconds"])
        headers = {"api-key": settings["api_key"], "Accept": "application/json"}
        # A payment that wants the payer is cancelled at once; both requests have to fit into one time-out.
        self._target = (settings["base_url"], headers, total * (1 - _CANCEL_SHARE))
        self._cancelling = (settings["base_url"], headers, total * _CANCEL_SHARE)
        self.traits = ClientTraits(
            key_ttl=KEY_TTL, lookup=Lookup.AUTHORITATIVE, settles=Settles.NOW, timeout_seconds=total
        )

    def check(self) -> str:
        self._api.understood(self._api.read("/payments/list", {"limit": "1"}), _data)
        return "Hyperswitch answers."

    def charge(self, request: ChargeRequest) -> ChargeResult:
        """Create and confirm one payment without the payer; see ProviderClient.charge."""
        stored = "mandate_id" if request.token.startswith("man_") else "payment_method_id"
        body: dict[str, Any] = {
            "payment_id": payment_id(request.reference),
            "amount": request.amount_minor,
            "currency": request.currency,
            "customer_id": request.customer,
            "confirm": True,
            "off_session": True,
            "capture_method": "automatic",
            "recurring_details": {"type": stored, "data": request.token},
            "description": request.description[:1000] or None,
            "merchant_order_reference_id": request.metadata.get("invoice"),
            "metadata": {
                **request.metadata,
                "order_id": request.metadata.get("invoice", ""),
                REFERENCE_KEY: request.reference,
            },
        }
        if self._profile:
            body["profile_id"] = self._profile
        answer = self._api.write("POST", "/payments", json=body, headers=_key(request.idempotency_key))
        if isinstance(answer, ChargeResult):
            return answer
        if self._told_twice(answer):
            answer = self._read_back(f"/payments/{payment_id(request.reference)}", "a payment")
        expected = {
            "provider_id": payment_id(request.reference),
            "currency": request.currency,
            "reference": request.reference,
        }
        result = self._api.result(answer, payment_result, **expected)
        if (answer.body or {}).get("status") == NEEDS_ACTION:
            self._cancel(result.provider_id, request.idempotency_key)
        return result

    def charge_get(self, provider_id: str) -> ChargeResult | None:
        """Read one payment, as its processor sees it now."""
        answer = self._api.read(f"/payments/{quote(provider_id, safe='')}", {"force_sync": "true"})
        return self._api.found(answer, payment_result, absent=_ABSENT)

    def charge_find(self, reference: str) -> ChargeResult | None:
        return self.charge_get(payment_id(reference))

    def charges_list(self, created_after: datetime) -> Iterator[ChargeResult]:
        """Newest first, read page by page while it is iterated."""
        parameters = {"created.gte": created_after.astimezone(UTC).isoformat(), "limit": str(_PAGE)}
        return self._api.listed(self._pages(parameters), _decided)

    def _pages(self, parameters: dict[str, str]) -> Iterator[list[Mapping[str, Any]]]:
        for _ in range(_MOST_PAGES):
            page = self._api.understood(self._api.read("/payments/list", parameters), _data)
            yield page
            if len(page) < _PAGE:
                return
            parameters["starting_after"] = str(page[-1].get("payment_id"))

    def refund(self, request: RefundRequest) -> ChargeResult:
        """Refund a payment, in whole or in part; see ProviderClient.refund."""
        paid = request.payment_id or request.charge_id
        body = {
            "payment_id": paid,
            "refund_id": refund_id(request.reference),
            "amount": request.amount_minor,
            "reason": request.reason[:255] or None,
            "refund_type": "instant",
            "metadata": {REFERENCE_KEY: request.reference},
        }
        answer = self._api.write("POST", "/refunds", json=body, headers=_key(request.idempotency_key))
        if isinstance(answer, ChargeResult):
            return answer
        if self._told_twice(answer):
            answer = self._read_back(f"/refunds/{refund_id(request.reference)}", "a refund")
        return self._api.result(
            answer,
            refund_result,
            provider_id=refund_id(request.reference),
            payment_id=paid,
            currency=request.currency,
            amount_minor=request.amount_minor,
        )

    def refund_get(self, provider_id: str) -> ChargeResult | None:
        answer = self._api.read(f"/refunds/{quote(provider_id, safe='')}", {"force_sync": "true"})
        return self._api.found(answer, refund_result, absent=_ABSENT)

    def refund_find(self, reference: str) -> ChargeResult | None:
        return self.refund_get(refund_id(reference))

    @property
    def _api(self) -> ProviderApi:
        return ProviderApi("Hyperswitch", transport(*self._target), _code)

    def _told_twice(self, answer: Answer) -> bool:
        """The id was used before: by us, for the request whose answer got lost."""
        return answer.status == 400 and _code(answer) == _DUPLICATE

    def _read_back(self, path: str, what: str) -> Answer:
        """What stands under an id that was sent before; nobody knows while it cannot be read."""
        answer = self._api.write("GET", path, params={"force_sync": "true"})
        if isinstance(answer, ChargeResult) or answer.status != 200:
            read = None if isinstance(answer, ChargeResult) else answer
            raise self._api.uncertain(f"knows {what} of this id and does not show it", read)
        return answer

    def _cancel(self, provider_id: str, key: str) -> None:
        """Close a payment that wants the payer, who is not here: left open it could still be completed beside the
        next one. If it does not close, nobody knows how it ends."""
        api = ProviderApi("Hyperswitch", transport(*self._cancelling), _code)
        path = f"/payments/{quote(provider_id, safe='')}/cancel"
        body = {"cancellation_reason": "requested_by_customer"}
        answer = api.write("POST", path, json=body, headers=_key(f"{key}-cancel"))
        if isinstance(answer, ChargeResult) or (answer.body or {}).get("status") != "cancelled":
            read = None if isinstance(answer, ChargeResult) else answer
            raise api.uncertain("asks for the payer and did not cancel the payment", read)


def payment_id(reference: str) -> str:
    """Hyperswitch takes ids of exactly 30 characters; ours are as long only by chance."""
    return f"pay_{hashlib.blake2b(reference.encode(), digest_size=13).hexdigest()}"


def refund_id(reference: str) -> str:
    return f"ref_{hashlib.blake2b(reference.encode(), digest_size=13).hexdigest()}"


def _key(key: str) -> Mapping[str, str]:
    return {"Idempotency-Key": key}


def _code(answer: Answer) -> str:
    error = answer.body.get("error") if answer.body else None
    code = error.get("code") if isinstance(error, dict) else None
    return code[:100] if isinstance(code, str) else ""


def _data(page: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if "data" not in page:
        raise RecordMalformed("data")
    return parts(page, "data")


def _decided(payment: Mapping[str, Any]) -> ChargeResult | None:
    """A payment that waits for its method or for being confirmed says nothing about money yet."""
    return None if payment.get("status") in _UNDECIDED else payment_result(payment)
