"""Stripe knocking at the door: signed bodies over HTTP, as the provider sends them, and what the ledger says then."""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import stripe
from django.http import HttpResponse
from django.test import Client

from accounts.models import Merchant
from analytics.period import period_of
from analytics.selectors.invariants import NAMES, breaches
from invoices.chain import Link, link_hash
from invoices.models import Attempt, Connection, Dispute, Event, Invoice, ReviewItem, Transaction
from invoices.services.parties import connection_create
from retries.models import Case, RetryJob
from retries.states import JOB_OPEN
from tokens.models import Token
from webhooks.models import InboxEvent, WebhookEndpoint
from webhooks.services import InboxCounts, endpoint_create, inbox_drain

SECRET = "whsec_door_of_the_tests"


def encoded(event: Mapping[str, Any]) -> bytes:
    """The body as Stripe writes it: indented, so that a re-serialised copy has another signature."""
    return json.dumps(event, indent=2).encode()


def signature(body: bytes, *, secret: str = SECRET, at: float | None = None) -> str:
    """A Stripe-Signature header; `at` is a Unix time, default now."""
    stamp = int(time.time() if at is None else at)
    signed = stripe.WebhookSignature._compute_signature(f"{stamp}.{body.decode('latin-1')}", secret)
    if not body.isascii():
        signed = _hmac(f"{stamp}.".encode() + body, secret)
    return f"t={stamp},v1={signed}"


def _hmac(signed: bytes, secret: str) -> str:
    import hmac

    return hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Door:
    """One merchant's Stripe endpoint."""

    merchant: Merchant
    connection: Connection
    endpoint: WebhookEndpoint
    client: Client = field(default_factory=Client)

    @property
    def path(self) -> str:
        return f"/webhooks/stripe/{self.endpoint.uuid}/"

    def post(self, body: bytes, *, header: str | None = None, path: str = "", **more: Any) -> HttpResponse:
        """Any body; signed with the endpoint's secret unless `header` says otherwise ("" sends none)."""
        signed = signature(body) if header is None else header
        headers = {"Stripe-Signature": signed} if signed else {}
        return self.client.post(
            path or self.path, data=body, content_type="application/json; charset=utf-8", headers=headers, **more
        )

    def deliver(self, *events: Mapping[str, Any]) -> None:
        for event in events:
            answer = self.post(encoded(event))
            assert answer.status_code == 200, answer.content

    def drain(self, now: datetime) -> InboxCounts:
        return inbox_drain(now=now)

    def inbox(self) -> list[tuple[str, str, str]]:
        """(type, status, reason) in order of arrival."""
        rows = InboxEvent.objects.filter(endpoint=self.endpoint).order_by("pk")
        return list(rows.values_list("event_type", "status", "reason"))


def door_open(merchant: Merchant, **config: Any) -> Door:
    """A charging Stripe connection with an endpoint for `merchant`."""
    connection = connection_create(
        merchant=merchant, provider="stripe", config={"api_key": "sk_test_door", "mode": "charge", **config}
    )
    endpoint = endpoint_create(merchant=merchant, provider="stripe", secret=SECRET, connection=connection)
    return Door(merchant, connection, endpoint)


def chain_faults(merchant: Merchant) -> list[str]:
    """Every event whose hash does not follow from the one before, and every invoice whose head is not its last."""
    faults = []
    for invoice in Invoice.objects.filter(merchant=merchant):
        head = ""
        for seq, event in enumerate(Event.objects.filter(invoice=invoice).order_by("seq"), start=1):
            link = Link(
                invoice=invoice.public_id,
                seq=seq,
                subject_type=event.subject_type,
                subject_id=event.subject_id,
                kind=event.kind,
                from_state=event.from_state,
                to_state=event.to_state,
                actor=event.actor,
                cause=event.cause,
                data=event.data,
                occurred_at=event.occurred_at,
            )
            head = link_hash(head, link)
            if event.hash != head:
                faults.append(f"{invoice}: event {event.seq} {event.kind}")
                break
        if (invoice.last_hash, invoice.last_seq) != (head, Event.objects.filter(invoice=invoice).count()):
            faults.append(f"{invoice}: head")
    return faults


def broken_promises(merchant: Merchant, now: datetime) -> dict[str, list[int]]:
    """The must-be-zero board, without what is zero."""
    found = {name: breaches(name, merchant, period_of(20_000, now, ZoneInfo("UTC"))) for name in NAMES}
    return {name: pks for name, pks in found.items() if pks}


def ledger(merchant: Merchant) -> list[dict[str, Any]]:
    """What the ledger says about a merchant's invoices, without anything that depends on the order of telling."""
    invoices = Invoice.objects.filter(merchant=merchant).select_related("customer")
    return sorted((_invoice(invoice) for invoice in invoices), key=repr)


def _invoice(invoice: Invoice) -> dict[str, Any]:
    case = Case.objects.filter(invoice=invoice).order_by("-pk").first()
    return {
        "invoice": invoice.provider_invoice_id,
        "customer": invoice.customer.connector_customer_id,
        "status": str(invoice.status),
        "amount": (invoice.amount_minor, invoice.currency),
        "paid": invoice.paid_minor,
        "refunded": invoice.refunded_minor,
        "number": invoice.number,
        "subscription": invoice.subscription_id,
        "provider_retry_at": invoice.provider_retry_at,
        "attempts": sorted(_attempts(Attempt.objects.filter(invoice=invoice)), key=repr),
        "transactions": sorted(
            Transaction.objects.filter(invoice=invoice).values_list("kind", "status", "amount_minor", "currency")
        ),
        "cases": Case.objects.filter(invoice=invoice).count(),
        "case": (case.status, case.category, case.code, case.next_step, case.next_step_at) if case else None,
        "jobs": sorted(
            RetryJob.objects.filter(invoice=invoice, status__in=JOB_OPEN).values_list(
                "status", "token__provider_token", "due_at", "trigger"
            )
        ),
        "disputes": sorted(Dispute.objects.filter(invoice=invoice).values_list("provider_id", "kind", "status")),
        "reviews": sorted(ReviewItem.objects.filter(invoice=invoice).values_list("kind", "resolved_at")),
    }


def _attempts(attempts: Iterable[Attempt]) -> list[tuple[Any, ...]]:
    return [
        (
            attempt.kind,
            attempt.status,
            attempt.provider_id,
            attempt.provider_payment_id,
            attempt.amount_minor,
            attempt.raw_code,
            attempt.category,
            attempt.token.provider_token if attempt.token else None,
        )
        for attempt in attempts
    ]


def tokens(merchant: Merchant) -> list[tuple[Any, ...]]:
    """(token, status, default, card's last four, expiry) of every token."""
    rows = Token.objects.filter(merchant=merchant).order_by("provider_token")
    return list(rows.values_list("provider_token", "status", "is_default", "card__last4", "card__exp_year"))
