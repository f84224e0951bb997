"""Stripe's side of a story: the events that it sends about one invoice, in the shape before basil or of basil.

Only keys that exist in Stripe's objects of that version. Before basil every object names the invoice; from basil on
neither charges nor payment intents do, and invoices name no charge.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from providers.base import InboundRequest

OLD = "2022-11-15"
BASIL = "2025-10-29.clover"
SECRET = "whsec_of_the_tests"
# The receiver's clock; `inbox_receive` takes it as an argument, so signatures need no real time.
CLOCK = 1_772_442_000.0
_serial = count(1)

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StripeEvent:
    """One event; `again` is the same fact under another event id, as Stripe sends when it tells it once more."""

    id: str
    type: str
    created: datetime
    object: Body
    version: str
    previous: Body = field(default_factory=dict)

    def again(self) -> "StripeEvent":
        return replace(self, id=_name("evt"))

    def body(self) -> bytes:
        data = {"object": self.object, **({"previous_attributes": self.previous} if self.previous else {})}
        return json.dumps(
            {
                "id": self.id,
                "object": "event",
                "api_version": self.version,
                "type": self.type,
                "created": int(self.created.timestamp()),
                "data": data,
            }
        ).encode()

    def request(self) -> InboundRequest:
        """The signed HTTP request."""
        body = self.body()
        signed = hmac.new(SECRET.encode(), f"{int(CLOCK)}.".encode() + body, hashlib.sha256).hexdigest()
        return InboundRequest(body, {"stripe-signature": f"t={int(CLOCK)},v1={signed}"})


def _name(prefix: str) -> str:
    return f"{prefix}_{next(_serial)}"


def seconds(at: datetime) -> int:
    return int(at.astimezone(UTC).timestamp())


@dataclass(slots=True, kw_only=True)
class Bill:
    """One Stripe invoice with its payment intent and the customer's payment method."""

    key: str
    token: str
    customer: str
    at: datetime
    amount: int = 2500
    currency: str = "usd"
    version: str = OLD
    network: str = "visa"
    fingerprint: str = ""
    subscription: str = ""
    expiry: tuple[int, int] = (12, 2030)
    tries: int = field(default=0, init=False)

    @property
    def id(self) -> str:
        return f"in_{self.key}"

    @property
    def intent(self) -> str:
        return f"pi_{self.key}"

    @property
    def old(self) -> bool:
        return self.version < "2025-03-31"

    def attempt(self, at: datetime | None = None, **known: Any) -> "Try":
        """Stripe's next own try of this invoice, `at` (default: the bill's time)."""
        self.tries += 1
        return Try(bill=self, number=self.tries, at=at or self.at, **known)

    def event(self, kind: str, obj: Body, at: datetime, previous: Body | None = None) -> StripeEvent:
        return StripeEvent(_name("evt"), kind, at, obj, self.version, previous or {})

    def card(self) -> Body:
        return {
            "brand": self.network,
            "last4": "4242",
            "exp_month": self.expiry[0],
            "exp_year": self.expiry[1],
            "fingerprint": self.fingerprint or f"fp_{self.token}",
            "funding": "credit",
        }

    def method(self) -> Body:
        card = self.card()
        return {"id": self.token, "object": "payment_method", "type": "card", "customer": self.customer, "card": card}

    def invoice(self, *, charge: str = "", status: str = "open", paid: int = 0, **more: Any) -> Body:
        body = {
            "id": self.id,
            "object": "invoice",
            "amount_due": self.amount,
            "amount_paid": paid,
            "amount_remaining": self.amount - paid,
            "total": self.amount,
            "currency": self.currency,
            "customer": self.customer,
            "attempt_count": self.tries,
            "next_payment_attempt": None,
            "number": f"N-{self.key}",
            "status": status,
            "created": seconds(self.at - timedelta(hours=1)),
        }
        if self.old:
            body |= {"charge": charge or None, "payment_intent": self.intent, "subscription": self.subscription or None}
        elif self.subscription:
            body["parent"] = {"subscription_details": {"subscription": self.subscription}}
        return body | more

    # --- what happens to the invoice ------------------------------------------------------------------------------

    def updated(self, at: datetime, **more: Any) -> StripeEvent:
        return self.event("invoice.updated", self.invoice(**more), at)

    def voided(self, at: datetime) -> StripeEvent:
        return self.event("invoice.voided", self.invoice(status="void"), at)

    def uncollectible(self, at: datetime) -> StripeEvent:
        return self.event("invoice.marked_uncollectible", self.invoice(status="uncollectible"), at)

    def subscription_deleted(self, at: datetime) -> StripeEvent:
        body = {"id": self.subscription, "object": "subscription", "customer": self.customer, "status": "canceled"}
        return self.event("customer.subscription.deleted", body, at)

    # --- what happens to the payment method -----------------------------------------------------------------------

    def method_attached(self, at: datetime) -> StripeEvent:
        return self.event("payment_method.attached", self.method(), at)

    def method_updated(self, at: datetime, previous: Body) -> StripeEvent:
        return self.event("payment_method.automatically_updated", self.method(), at, previous)

    def method_detached(self, at: datetime) -> StripeEvent:
        body = self.method() | {"customer": None}
        return self.event("payment_method.detached", body, at, {"customer": self.customer})


@dataclass(slots=True, kw_only=True)
class Try:
    """One charge of a bill's payment intent. `reference` is our attempt's public id where we sent it."""

    bill: Bill
    number: int
    at: datetime
    code: str = "insufficient_funds"
    network_code: str = ""
    advice_code: str = ""
    reference: str = ""
    charge: str = ""
    amount: int | None = None
    currency: str = ""
    captured: int | None = None

    def __post_init__(self) -> None:
        self.charge = self.charge or f"ch_{self.bill.key}_{self.number}"

    @property
    def metadata(self) -> Mapping[str, str]:
        return {"attempt": self.reference} if self.reference else {}

    def _charge(self, status: str) -> Body:
        bill = self.bill
        amount = bill.amount if self.amount is None else self.amount
        body: Body = {
            "id": self.charge,
            "object": "charge",
            "amount": amount,
            "amount_captured": (amount if self.captured is None else self.captured) if status == "succeeded" else 0,
            "amount_refunded": 0,
            "currency": self.currency or bill.currency,
            "customer": bill.customer,
            "payment_intent": bill.intent,
            "payment_method": bill.token,
            "payment_method_details": {"type": "card", "card": bill.card()},
            "created": seconds(self.at),
            "status": status,
            "paid": status == "succeeded",
            "captured": status == "succeeded",
            "metadata": dict(self.metadata),
        }
        if bill.old:
            body["invoice"] = bill.id
        if status == "failed":
            body["failure_code"] = "card_declined"
            body["outcome"] = {
                "type": "issuer_declined",
                "network_status": "declined_by_network",
                "reason": self.code,
                "network_decline_code": self.network_code or None,
                "network_advice_code": self.advice_code or None,
            }
        return body

    def _intent(self, status: str) -> Body:
        bill = self.bill
        amount = bill.amount if self.amount is None else self.amount
        body: Body = {
            "id": bill.intent,
            "object": "payment_intent",
            "amount": amount,
            "amount_received": (amount if self.captured is None else self.captured) if status == "succeeded" else 0,
            "currency": self.currency or bill.currency,
            "customer": bill.customer,
            "latest_charge": self.charge,
            "status": status,
            "payment_method": bill.token if status == "succeeded" else None,
            "payment_method_types": ["card"],
            "metadata": dict(self.metadata),
            "created": seconds(self.at - timedelta(minutes=1)),
        }
        if bill.old:
            body["invoice"] = bill.id
        return body

    def _told(self, kind: str, body: Body, after: int) -> StripeEvent:
        return self.bill.event(kind, body, self.at + timedelta(seconds=after))

    def charge_failed(self) -> StripeEvent:
        return self._told("charge.failed", self._charge("failed"), 1)

    def intent_failed(self, *, with_method: bool = True) -> StripeEvent:
        error = {"charge": self.charge, "code": "card_declined", "decline_code": self.code, "type": "card_error"}
        if with_method:
            error["payment_method"] = self.bill.method()
        return self._told(
            "payment_intent.payment_failed", self._intent("requires_payment_method") | {"last_payment_error": error}, 2
        )

    def invoice_failed(self, **more: Any) -> StripeEvent:
        body = self.bill.invoice(charge=self.charge, **{"attempt_count": self.number, **more})
        return self._told("invoice.payment_failed", body, 3)

    def invoice_updated(self) -> StripeEvent:
        body = self.bill.invoice(charge=self.charge, attempt_count=self.number)
        return self._told("invoice.updated", body, 3)

    def charge_succeeded(self) -> StripeEvent:
        return self._told("charge.succeeded", self._charge("succeeded"), 1)

    def charge_pending(self) -> StripeEvent:
        return self._told("charge.pending", self._charge("pending"), 1)

    def intent_succeeded(self) -> StripeEvent:
        return self._told("payment_intent.succeeded", self._intent("succeeded"), 2)

    def invoice_paid(self, kind: str = "invoice.paid") -> StripeEvent:
        bill = self.bill
        body = bill.invoice(charge=self.charge, status="paid", paid=bill.amount, attempt_count=self.number)
        return self._told(kind, body, 3)

    def linked(self) -> StripeEvent:
        """`invoice_payment.paid`: basil's only word on which invoice a payment belongs to."""
        body = {
            "id": f"inpay_{self.bill.key}",
            "object": "invoice_payment",
            "amount_paid": self.bill.amount,
            "amount_requested": self.bill.amount,
            "currency": self.bill.currency,
            "invoice": self.bill.id,
            "payment": {"type": "payment_intent", "payment_intent": self.bill.intent},
            "status": "paid",
        }
        return self._told("invoice_payment.paid", body, 4)

    def failed(self) -> list[StripeEvent]:
        """The four events that tell one failed charge."""
        return [self.charge_failed(), self.intent_failed(), self.invoice_failed(), self.invoice_updated()]

    def succeeded(self) -> list[StripeEvent]:
        """The events that tell one successful charge."""
        told = [self.charge_succeeded(), self.intent_succeeded(), self.invoice_paid()]
        return told if self.bill.old else [*told, self.linked()]

    # --- money going back -----------------------------------------------------------------------------------------

    def charge_refunded(self, total: int, before: int, at: datetime) -> StripeEvent:
        """Only the charge's new total, as Stripe tells it from 2022-11-15 on."""
        body = self._charge("succeeded") | {"amount_refunded": total}
        return self.bill.event("charge.refunded", body, at, {"amount_refunded": before})

    def refund(
        self, name: str, amount: int, at: datetime, status: str = "succeeded", kind: str = "refund.created", **more: Any
    ) -> StripeEvent:
        body = {
            "id": f"re_{self.bill.key}_{name}",
            "object": "refund",
            "amount": amount,
            "charge": self.charge,
            "currency": self.bill.currency,
            "payment_intent": self.bill.intent,
            "status": status,
            "metadata": {},
        }
        return self.bill.event(kind, body | more, at)

    def dispute(
        self, status: str, at: datetime, *, kind: str = "", amount: int | None = None, name: str = "1", **more: Any
    ) -> StripeEvent:
        """`status` as Stripe writes it: needs_response, won, lost."""
        body = {
            "id": f"du_{self.bill.key}_{name}",
            "object": "dispute",
            "amount": self.bill.amount if amount is None else amount,
            "charge": self.charge,
            "currency": self.bill.currency,
            "payment_intent": self.bill.intent,
            "reason": "product_not_received",
            "status": status,
            "payment_method_details": {"type": "card", "card": {"brand": self.bill.network}},
        }
        kind = kind or ("charge.dispute.closed" if status in ("won", "lost") else "charge.dispute.created")
        return self.bill.event(kind, body | more, at)
