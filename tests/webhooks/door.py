"""Stripe knocking at the door: signed bodies over HTTP, as the provider sends them, and what the ledger says then."""

import hmac
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.apps import apps
from django.test import Client

from accounts.models import Merchant
from invoices.models import Attempt, Connection, Dispute, Event, Invoice, ReviewItem, Transaction
from invoices.services.parties import connection_create
from recovery_site.console.verification import verify
from retries.models import Case, RetryJob
from retries.states import JOB_OPEN
from tokens.models import Token
from webhooks.models import InboxEvent, WebhookEndpoint
from webhooks.services import InboxCounts, endpoint_create, inbox_drain

SECRET = "whsec_door_of_the_tests"
# Every table that a webhook may write to.
_TABLES = ("webhooks", "invoices", "tokens", "retries", "notifications")
Body = dict[str, Any]


def encoded(event: Mapping[str, Any]) -> bytes:
    """The body as Stripe writes it: indented, so that a re-serialised copy has another signature."""
    return json.dumps(event, indent=2).encode()


def signature(body: bytes, *, secret: str = SECRET, at: float | None = None) -> str:
    """A Stripe-Signature header by Stripe's own rule; `at` is a Unix time, default now."""
    stamp = int(time.time() if at is None else at)
    return f"t={stamp},v1={hmac.new(secret.encode(), f'{stamp}.'.encode() + body, 'sha256').hexdigest()}"


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

    def post(
        self, body: bytes, *, header: str | None = None, path: str = "", environ: Mapping[str, Any] | None = None
    ) -> Any:
        """Any body; signed with the endpoint's secret unless `header` says otherwise ("" sends none)."""
        signed = signature(body) if header is None else header
        return self.client.post(
            path or self.path,
            data=body,
            content_type="application/json; charset=utf-8",
            headers={"Stripe-Signature": signed} if signed else {},
            **(environ or {}),
        )

    def deliver(self, *events: Mapping[str, Any]) -> None:
        """Properly signed events, one request each."""
        for event in events:
            answer = self.post(encoded(event))
            assert answer.status_code == 200, answer.content

    def tell(self, now: datetime, *events: Mapping[str, Any]) -> None:
        """Deliver and process one after the other."""
        for event in events:
            self.deliver(event)
            self.drain(now)

    def drain(self, now: datetime) -> InboxCounts:
        return inbox_drain(now=now)

    def inbox(self) -> list[tuple[str, str, str]]:
        """(type, status, reason) in order of arrival."""
        rows = InboxEvent.objects.filter(endpoint=self.endpoint).order_by("pk")
        return list(rows.values_list("event_type", "status", "reason"))

    def invoice(self) -> Invoice:
        return Invoice.objects.get(merchant=self.merchant)

    def case(self) -> Case:
        return Case.objects.get(merchant=self.merchant)

    def alerts(self) -> list[str]:
        alerts = Event.objects.filter(merchant=self.merchant, kind__startswith="alert.")
        return sorted(alerts.values_list("kind", flat=True))


def door_open(merchant: Merchant, **config: Any) -> Door:
    """A charging Stripe connection with an endpoint for `merchant`."""
    connection = connection_create(
        merchant=merchant, provider="stripe", config={"api_key": "sk_test_door", "mode": "charge", **config}
    )
    endpoint = endpoint_create(merchant=merchant, provider="stripe", secret=SECRET, connection=connection)
    return Door(merchant, connection, endpoint)


def rows() -> dict[str, int]:
    """How many rows every table of the ledger has, empty ones left out."""
    models = [model for app in _TABLES for model in apps.get_app_config(app).get_models()]
    counted = {model.__name__: model._default_manager.count() for model in models}
    return {name: number for name, number in counted.items() if number}


def faults(merchant: Merchant) -> list[str]:
    """What `verify_ledger` finds: broken hash chains, rows that their events do not give, promises broken."""
    report = verify(merchant=merchant)
    return [f"{problem.invoice}: {problem.problem} {problem.detail}" for problem in report.problems]


def ledger(merchant: Merchant) -> list[Body]:
    """What the ledger says about a merchant's invoices, without what the order of telling may change: row ids,
    the numbers of events, when we recorded what."""
    invoices = Invoice.objects.filter(merchant=merchant).select_related("customer")
    return sorted((_invoice(invoice) for invoice in invoices), key=repr)


def _invoice(invoice: Invoice) -> Body:
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
        "attempts": sorted(_attempts(Attempt.objects.filter(invoice=invoice).select_related("token")), key=repr),
        "transactions": sorted(
            Transaction.objects.filter(invoice=invoice).values_list("kind", "status", "amount_minor", "currency")
        ),
        "cases": sorted(_case(case) for case in Case.objects.filter(invoice=invoice)),
        "jobs": sorted(
            RetryJob.objects.filter(invoice=invoice, status__in=JOB_OPEN).values_list(
                "status", "token__provider_token", "trigger"
            )
        ),
        "disputes": sorted(Dispute.objects.filter(invoice=invoice).values_list("provider_id", "kind", "status")),
        "reviews": sorted(ReviewItem.objects.filter(invoice=invoice).values_list("kind", "resolution")),
    }


def _case(case: Case) -> tuple[Any, ...]:
    """A case without when we learned of it (opened, closed). Whether the plan had run out is left out once it is
    closed: of a failure that is told after its payment there never was a plan."""
    return (
        case.status,
        case.category,
        case.code,
        case.first_category,
        case.first_code,
        case.amount_minor,
        case.recovered_minor,
        case.recovered_by,
        case.close_reason,
        case.automatic_barred,
        case.next_step,
        case.exhausted_at is not None if case.status == "OPEN" else None,
    )


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
    """(token, status, default, card's last four, expiry year) of every token."""
    found = Token.objects.filter(merchant=merchant).order_by("provider_token")
    return list(found.values_list("provider_token", "status", "is_default", "card__last4", "card__exp_year"))
