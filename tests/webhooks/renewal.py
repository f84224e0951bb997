"""A subscription's renewal as Stripe tells it, in the shapes before and from the basil API version on.

Before it (OLD) invoice, payment intent and charge name each other; from it on (BASIL) neither side names the other and
only invoice_payment events join them.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from tests.contract.stripe_fixtures import load

OLD = "2022-11-15"
BASIL = "2025-10-29.clover"
SHAPES = (OLD, BASIL)
FAILED_AT = datetime(2026, 1, 1, 9, 0, tzinfo=UTC)

Body = dict[str, Any]
# The network's own codes overrule Stripe's; the stories speak in Stripe's.
_NO_NETWORK_CODES = {"advice_code": None, "network_advice_code": None, "network_decline_code": None}
_numbers = count(1)


def moment(seconds: float) -> datetime:
    """`seconds` after the renewal's first charge."""
    return FAILED_AT + timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True)
class Renewal:
    """One invoice of one customer, its payment intent `pi_<name>` and charges `ch_<name>_<n>`."""

    shape: str
    name: str = "1"
    customer: str = "cus_northwind"
    amount: int = 4900
    token: str | None = "pm_northwind_1"
    # Whether the invoice names the payment method; most do not, because the customer's default is used.
    named_method: bool = True

    @property
    def invoice(self) -> str:
        return f"in_{self.name}"

    @property
    def intent(self) -> str:
        return f"pi_{self.name}"

    def charge(self, number: int) -> str:
        return f"ch_{self.name}_{number}"

    def charge_failed(self, number: int = 1, *, after: int = 1, code: str = "insufficient_funds") -> Body:
        reason = {**self._object("charge.failed.json")["outcome"], **_NO_NETWORK_CODES, "reason": code}
        return self._event(
            "charge.failed.json", after, self._charge(number, after - 1) | {"amount": self.amount, "outcome": reason}
        )

    def charge_succeeded(self, number: int = 1, *, after: int = 1) -> Body:
        money = {"amount": self.amount, "amount_captured": self.amount}
        return self._event("charge.succeeded.json", after, self._charge(number, after - 1) | money)

    def intent_failed(self, number: int = 1, *, after: int = 2, code: str = "insufficient_funds") -> Body:
        error = copy.deepcopy(self._object("payment_intent.payment_failed.json")["last_payment_error"])
        error |= {**_NO_NETWORK_CODES, "charge": self.charge(number), "decline_code": code}
        error["payment_method"] |= {"id": self.token, "customer": self.customer}
        error["payment_method"]["card"]["fingerprint"] = f"fp_{self.token}"
        changes = self._intent(number) | {"last_payment_error": error}
        return self._event("payment_intent.payment_failed.json", after, changes)

    def intent_succeeded(self, number: int = 1, *, after: int = 2) -> Body:
        changes = self._intent(number) | {"amount_received": self.amount, "payment_method": self.token}
        return self._event("payment_intent.succeeded.json", after, changes)

    def invoice_failed(self, number: int = 1, *, after: int = 3, next_try: int | None = None) -> Body:
        changes = self._invoice(number) | {"attempt_count": number, "next_payment_attempt": self._unix(next_try)}
        return self._event("invoice.payment_failed.json", after, changes)

    def invoice_paid(self, number: int = 1, *, after: int = 3) -> Body:
        paid = {"amount_paid": self.amount, "amount_remaining": 0, "status": "paid", "attempt_count": number}
        event = self._event("invoice.payment_failed.json", after, self._invoice(number) | paid)
        return event | {"type": "invoice.paid"}

    def invoice_voided(self, *, after: int = 100) -> Body:
        event = self._event("invoice.payment_failed.json", after, self._invoice(1) | {"status": "void"})
        return event | {"type": "invoice.voided"}

    def past_due(self, *, after: int = 4) -> Body:
        changes = {"customer": self.customer, "latest_invoice": self.invoice}
        return self._event("customer.subscription.updated.json", after, changes)

    def subscription_deleted(self, *, after: int = 100) -> Body:
        event = self._event("customer.subscription.updated.json", after, {"customer": self.customer})
        event["data"].pop("previous_attributes")
        event["data"]["object"] |= {"status": "canceled", "ended_at": event["created"]}
        return event | {"type": "customer.subscription.deleted"}

    def payment_joined(self, *, kind: str = "paid", after: int = 5) -> Body:
        """invoice_payment.*: from basil on the word that joins invoice and payment intent."""
        assert self.shape == BASIL
        changes = {
            "id": f"inpay_{self.name}",
            "invoice": self.invoice,
            "amount_requested": self.amount,
            "amount_paid": self.amount if kind == "paid" else None,
            "status": "paid" if kind == "paid" else "open",
            "payment": {"payment_intent": self.intent, "type": "payment_intent"},
        }
        return self._event("invoice_payment.paid.json", after, changes) | {"type": f"invoice_payment.{kind}"}

    def charge_refunded(self, number: int, *, total: int, before: int = 0, after: int = 300) -> Body:
        """The charge's new refunded total, without the refunds themselves (API versions from 2022-11-15 on)."""
        event = self.charge_succeeded(number, after=after)
        event["data"]["object"] |= {"amount_refunded": total, "refunded": total == self.amount}
        event["data"]["previous_attributes"] = {"amount_refunded": before}
        return event | {"type": "charge.refunded"}

    def refund(
        self, number: int, kind: str, status: str, *, amount: int, refund: str = "re_1", after: int = 300
    ) -> Body:
        """refund.created, refund.updated, refund.failed or charge.refund.updated."""
        event = copy.deepcopy(load(f"{BASIL}/refund.updated.json"))
        event["data"].pop("previous_attributes")
        event["data"]["object"] |= {
            "id": refund,
            "amount": amount,
            "charge": self.charge(number),
            "payment_intent": self.intent,
            "metadata": {},
            "status": status,
            "failure_reason": "lost_or_stolen_card" if status == "failed" else None,
        }
        return self._stamped(event, after) | {"type": kind, "api_version": self.shape}

    def dispute(self, number: int, kind: str, status: str, *, after: int = 500) -> Body:
        event = copy.deepcopy(load(f"{BASIL}/charge.dispute.created.json"))
        event["data"]["object"] |= {
            "id": f"du_{self.name}",
            "amount": self.amount,
            "charge": self.charge(number),
            "payment_intent": self.intent,
            "status": status,
        }
        return self._stamped(event, after) | {"type": f"charge.dispute.{kind}", "api_version": self.shape}

    def card_replaced(self, *, after: int) -> Body:
        """The network has put a new card (9999, until 2031) behind the same payment method."""
        event: Body = copy.deepcopy(load(f"{BASIL}/payment_method.automatically_updated.json"))
        before = self._charge(1, 0)["payment_method_details"]["card"]
        method = event["data"]["object"]
        method |= {"id": self.token, "customer": self.customer}
        method["card"] |= {"brand": "visa", "fingerprint": "fp_new", "last4": "9999", "exp_year": 2031}
        changed = {key: before[key] for key in ("fingerprint", "last4", "exp_year", "exp_month")}
        event["data"]["previous_attributes"] = {"card": changed}
        return self._stamped(event, after)

    def _event(self, file: str, after: int, changes: Mapping[str, Any]) -> Body:
        event = copy.deepcopy(load(f"{self.shape}/{file}"))
        event["data"]["object"] |= changes
        return self._stamped(event, after)

    def _stamped(self, event: Body, after: int) -> Body:
        number = next(_numbers)
        return event | {"id": f"evt_{number:05}", "created": self._unix(after)}

    def _object(self, file: str) -> dict[str, Any]:
        found: dict[str, Any] = load(f"{self.shape}/{file}")["data"]["object"]
        return found

    def _unix(self, after: int | None) -> int | None:
        return None if after is None else int(moment(after).timestamp())

    def _charge(self, number: int, after: int) -> dict[str, Any]:
        card = copy.deepcopy(self._object("charge.failed.json")["payment_method_details"])
        card["card"]["fingerprint"] = f"fp_{self.token}"
        return {
            "id": self.charge(number),
            "created": self._unix(after),
            "customer": self.customer,
            "payment_intent": self.intent,
            "payment_method": self.token,
            "payment_method_details": card,
            "metadata": {},
            **({"invoice": self.invoice} if self.shape == OLD else {}),
        }

    def _intent(self, number: int) -> dict[str, Any]:
        return {
            "id": self.intent,
            "amount": self.amount,
            "customer": self.customer,
            "latest_charge": self.charge(number),
            "metadata": {},
            **({"invoice": self.invoice} if self.shape == OLD else {}),
        }

    def _invoice(self, number: int) -> dict[str, Any]:
        return {
            "id": self.invoice,
            "number": f"NW-{self.name}",
            "amount_due": self.amount,
            "amount_remaining": self.amount,
            "customer": self.customer,
            "default_payment_method": self.token if self.named_method else None,
            **({"payment_intent": self.intent, "charge": self.charge(number)} if self.shape == OLD else {}),
        }
