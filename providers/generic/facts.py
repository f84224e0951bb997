"""From a body that passed the schema to the facts of providers/base.py."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from providers.base import (
    BodyMalformed,
    CardFacts,
    CustomerFacts,
    DeclineFacts,
    DisputeFacts,
    DisputeStatus,
    InvoiceFacts,
    MethodFacts,
    PaymentFacts,
    RefundFacts,
    RefundStatus,
)
from recovery_site.common import money
from recovery_site.common.errors import InvalidInput

# Other names in use for the networks whose retry rules this service knows.
_NETWORKS = {
    "mc": "mastercard",
    "american_express": "amex",
    "diners_club": "diners",
    "cup": "unionpay",
    "union_pay": "unionpay",
}


@dataclass(frozen=True, slots=True)
class Reader:
    """Typed reading of one object of the body; `path` is its JSON pointer."""

    values: Mapping[str, Any]
    path: str = ""

    def child(self, name: str) -> "Reader | None":
        return Reader(self.values[name], f"{self.path}/{name}") if name in self.values else None

    def text(self, name: str) -> str:
        return str(self.values.get(name, "")).strip()

    def upper(self, name: str) -> str:
        return self.text(name).upper()

    def flag(self, name: str, default: bool) -> bool:
        return bool(self.values.get(name, default))

    def integer(self, name: str) -> int | None:
        return self.values.get(name)

    def time(self, name: str) -> datetime | None:
        return self.required_time(name) if name in self.values else None

    def required_time(self, name: str) -> datetime:
        try:
            return datetime.fromisoformat(self.values[name]).astimezone(UTC)
        except ValueError:
            raise BodyMalformed(
                f"{self.path}/{name} is not a date that exists: send a time such as 2026-03-01T09:30:00Z."
            ) from None

    def currency(self) -> str:
        try:
            return money.currency_code(self.values["currency"])
        except InvalidInput:
            raise BodyMalformed(
                f"{self.path}/currency is not an ISO 4217 currency code: send three letters such as USD."
            ) from None

    def amount(self, name: str, currency: str) -> int:
        """Minor units of `currency`; the schema has bounded integers, decimals are checked here."""
        value = self.values[name]
        try:
            return money.from_decimal_string(value, currency) if isinstance(value, str) else money.amount_minor(value)
        except InvalidInput:
            raise BodyMalformed(
                f"{self.path}/{name} is not an amount in {currency}: send integer minor units or a decimal"
                f" string with at most {money.exponent(currency)} decimals."
            ) from None

    def optional_amount(self, name: str, currency: str) -> int | None:
        return self.amount(name, currency) if name in self.values else None


def customer(body: Reader | None) -> CustomerFacts | None:
    if body is None:
        return None
    return CustomerFacts(
        id=body.text("id"),
        email=body.text("email"),
        name=body.text("name"),
        country=body.upper("country"),
        timezone=body.text("timezone"),
        locale=body.text("locale"),
    )


def invoice(body: Reader | None) -> InvoiceFacts | None:
    if body is None:
        return None
    currency = body.currency()
    return InvoiceFacts(
        id=body.text("id"),
        amount_minor=body.amount("amount", currency),
        currency=currency,
        paid_minor=body.optional_amount("amount_paid", currency) or 0,
        number=body.text("number"),
        description=body.text("description"),
        subscription_id=body.text("subscription_id"),
        plan=body.text("plan"),
        interval=body.text("interval"),
        status=body.text("status"),
        attempt_count=body.integer("attempt_count"),
        next_retry_at=body.time("next_retry_at"),
        payment_id=body.text("payment_id"),
        charge_id=body.text("charge_id"),
        token=body.text("token"),
        due_at=body.time("due_at"),
        issued_at=body.time("issued_at"),
    )


def payment(body: Reader, owed: InvoiceFacts | None, occurred_at: datetime) -> PaymentFacts | None:
    """The try to move money, with the method it used and why it failed; both stand beside it in the body."""
    part = body.child("payment")
    if part is None:
        return None
    currency = part.currency()
    invoice_id = part.text("invoice_id")
    if owed and invoice_id and invoice_id != owed.id:
        raise BodyMalformed("/payment/invoice_id and /invoice/id differ: send the same invoice in both or in one.")
    if owed and currency != owed.currency:
        raise BodyMalformed("/payment/currency and /invoice/currency differ: send the invoice's currency in both.")
    return PaymentFacts(
        charge_id=part.text("charge_id"),
        payment_id=part.text("payment_id"),
        amount_minor=part.amount("amount", currency),
        currency=currency,
        captured_minor=part.optional_amount("amount_captured", currency),
        invoice_id=invoice_id or (owed.id if owed else ""),
        reference=part.text("reference"),
        method=method(body.child("payment_method")),
        decline=_decline(body.child("error")),
        network_reference=part.text("network_reference"),
        gateway_reference=part.text("gateway_reference"),
        occurred_at=part.time("occurred_at") or occurred_at,
    )


def method(body: Reader | None) -> MethodFacts | None:
    if body is None:
        return None
    return MethodFacts(
        token=body.text("token"),
        kind=body.text("kind") or "card",
        card=_card(body.child("card")),
        is_default=body.flag("is_default", False),
        updated=body.flag("updated_by_network", False),
        previous=_card(body.child("previous_card")),
    )


def _card(body: Reader | None) -> CardFacts | None:
    if body is None:
        return None
    network = body.text("network").lower().replace(" ", "_")
    return CardFacts(
        fingerprint=body.text("fingerprint"),
        network=_NETWORKS.get(network, network),
        last4=body.text("last4"),
        exp_month=body.integer("exp_month"),
        exp_year=body.integer("exp_year"),
        funding=body.text("funding"),
        country=body.upper("country"),
        bin=body.text("bin"),
        issuer=body.text("issuer"),
    )


def _decline(body: Reader | None) -> DeclineFacts | None:
    if body is None:
        return None
    return DeclineFacts(
        raw_code=body.text("code"),
        network_code=body.upper("network_code"),
        advice_code=body.upper("advice_code"),
        provider_advice=body.text("provider_advice"),
        message=body.text("message"),
        sent_to_network=body.flag("sent_to_network", True),
        gateway=body.text("gateway").lower(),
    )


def refunds(body: Reader | None) -> tuple[RefundFacts, ...]:
    """The refund as the tuple that an event carries; a body holds at most one."""
    if body is None:
        return ()
    currency = body.currency()
    refund = RefundFacts(
        id=body.text("id"),
        amount_minor=body.amount("amount", currency),
        currency=currency,
        status=RefundStatus(body.text("status")),
        charge_id=body.text("charge_id"),
        payment_id=body.text("payment_id"),
        reference=body.text("reference"),
        reason=body.text("reason"),
        failure_reason=body.text("failure_reason"),
    )
    return (refund,)


def dispute(body: Reader | None) -> DisputeFacts | None:
    if body is None:
        return None
    currency = body.currency()
    return DisputeFacts(
        id=body.text("id"),
        amount_minor=body.amount("amount", currency),
        currency=currency,
        status=DisputeStatus(body.text("status")),
        charge_id=body.text("charge_id"),
        payment_id=body.text("payment_id"),
        reason_code=body.text("reason_code"),
        is_return=body.flag("is_return", False),
        respond_by=body.time("respond_by"),
    )
