"""Money that was paid and goes back: what the refund, dispute and staff queue tests have in common."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests

from invoices.models import Attempt, Invoice, ReviewItem, Transaction
from invoices.services.ledger import Stamp
from providers.base import (
    CardFacts,
    CustomerFacts,
    DeclineFacts,
    EventKind,
    InboundRequest,
    InvoiceFacts,
    MethodFacts,
    PaymentEvent,
    PaymentFacts,
)
from providers.sandbox.server.records import Event, Hook
from providers.sandbox.server.webhook_sender import signed
from recovery_site.common.clock import database_now
from recovery_site.console.verification import verify
from retries.handler import event_handle
from retries.models import RetryJob
from retries.refunding import refund_request
from tests.support.books import assert_next_steps, assert_promises, assert_slots, assert_totals
from tests.support.sandbox import Sandbox, sandbox_running
from tests.support.shop import Shop
from tests.support.stripe import Bill
from webhooks.models import WebhookEndpoint
from webhooks.services import endpoint_create, inbox_receive

HOOK = Hook("http://127.0.0.1:9/", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """A provider of the test's own: the reverse scan reads everything that its server has ever charged."""
    with sandbox_running(tmp_path) as running:
        yield running


def collected(shop: Shop, token: str = "tok_ok", **known: Any) -> Bill:
    """A bill that failed at the provider and was collected by our own retry: the invoice is SETTLED."""
    bill = shop.failed_bill(token, **known)
    assert shop.retry(bill).succeeded == 1
    assert shop.invoice(bill).status == "SETTLED"
    return bill


def owed(shop: Shop, number: int = 1, **known: Any) -> list[Bill]:
    """Bills whose first charge failed for want of money, each told by one event of a customer of its own."""
    bills = [shop.bill(**known) for _ in range(number)]
    for bill in bills:
        method = MethodFacts(token=bill.token, card=CardFacts(fingerprint=f"fp_{bill.token}", network=bill.network))
        event = PaymentEvent(
            kind=EventKind.PAYMENT_FAILED,
            provider="stripe",
            event_id=f"evt_{bill.key}",
            event_type="charge.failed",
            occurred_at=shop.at,
            customer=CustomerFacts(id=bill.customer),
            invoice=InvoiceFacts(id=bill.id, amount_minor=bill.amount, currency=bill.currency.upper()),
            payment=PaymentFacts(
                charge_id=f"ch_{bill.key}_1",
                payment_id=bill.intent,
                amount_minor=bill.amount,
                currency=bill.currency.upper(),
                invoice_id=bill.id,
                method=method,
                decline=DeclineFacts(raw_code="insufficient_funds"),
            ),
        )
        event_handle(event=event, connection=shop.connection, cause=event.event_id, now=shop.at)
    return bills


def charge_id(shop: Shop, bill: Bill) -> str:
    """The provider's id of our latest successful charge."""
    found = Attempt.objects.filter(invoice=shop.invoice(bill), kind="CHARGE", status="SUCCEEDED", origin="OURS")
    provider_id = found.latest("id").provider_id
    assert provider_id is not None
    return provider_id


def ask(shop: Shop, bill: Bill, amount: int | None = None, *, actor: str = "user:ann", charge: str = "") -> Transaction:
    """A person asks for a refund."""
    return refund_request(
        invoice_pk=shop.invoice(bill).pk,
        amount_minor=amount,
        reason="not as described",
        stamp=Stamp(actor=actor, cause="test", now=shop.at),
        charge_id=charge,
    )


def script(shop: Shop, bill: Bill, *steps: str) -> None:
    """How the next refunds of the bill's charge end at the sandbox."""
    shop.sandbox.script(f"refund:{charge_id(shop, bill)}", *steps)


def refunds(shop: Shop, bill: Bill) -> list[tuple[str, int]]:
    """(status, amount) of the invoice's refunds, oldest first."""
    rows = Transaction.objects.filter(invoice=shop.invoice(bill), kind="REFUND").order_by("id")
    return list(rows.values_list("status", "amount_minor"))


def refund_of(shop: Shop, bill: Bill) -> Transaction:
    """The newest refund."""
    return Transaction.objects.filter(invoice=shop.invoice(bill), kind="REFUND").latest("id")


def call_of(shop: Shop, bill: Bill) -> Attempt:
    """The newest refund call."""
    return Attempt.objects.filter(invoice=shop.invoice(bill), kind="REFUND").latest("id")


def refund_job(shop: Shop, bill: Bill) -> RetryJob:
    return RetryJob.objects.filter(invoice=shop.invoice(bill), kind="REFUND").latest("id")


def given_back(shop: Shop, bill: Bill) -> list[dict[str, Any]]:
    """The refunds of this bill's charges in the sandbox's own ledger."""
    ledger = requests.get(f"{shop.sandbox.url}/ledger", timeout=10).json()
    ours = {charge["id"] for charge in ledger["charges"] if charge["customer"] == bill.customer}
    return [refund for refund in ledger["refunds"] if refund["charge"] in ours]


def settle_refund(shop: Shop, refund_id: str, **outcome: str) -> None:
    """End a pending refund at the sandbox."""
    requests.post(f"{shop.sandbox.url}/refunds/{refund_id}/settle", json=outcome, timeout=10).raise_for_status()


def moved_back(shop: Shop, bill: Bill) -> int:
    """Minor units that the sandbox has really given back for this bill."""
    return sum(refund["amount"] for refund in given_back(shop, bill) if refund["status"] == "succeeded")


def totals(shop: Shop, bill: Bill) -> tuple[str, int, int]:
    """(status, paid, refunded) of the invoice."""
    invoice = shop.invoice(bill)
    return invoice.status, invoice.paid_minor, invoice.refunded_minor


def question(shop: Shop, bill: Bill, kind: str = "") -> ReviewItem:
    """The one open question about the bill's invoice (of this kind)."""
    found = ReviewItem.objects.filter(invoice=shop.invoice(bill), resolved_at=None)
    return found.get(kind=kind) if kind else found.get()


def alerts(shop: Shop, bill: Bill) -> list[str]:
    """Alerts since the first failure."""
    return [name for name in shop.alerts(bill) if name != "first_failure"]


def charge_at_provider(shop: Shop, bill: Bill, amount: int, currency: str = "USD") -> str:
    """Somebody else charges the customer at the provider; returns the charge's id."""
    body = {"amount": amount, "currency": currency, "token": bill.token, "customer": bill.customer}
    answer = requests.post(
        f"{shop.sandbox.url}/charges", json=body, headers={"Idempotency-Key": uuid4().hex}, timeout=10
    )
    answer.raise_for_status()
    found: str = answer.json()["id"]
    return found


def history(shop: Shop, bill: Bill) -> list[str]:
    return kinds(shop.invoice(bill))


def kinds(invoice: Invoice) -> list[str]:
    return list(invoice.events.order_by("seq").values_list("kind", flat=True))


def assert_clean(shop: Shop) -> None:
    """Every promise kept, and the ledger replays to its rows."""
    assert_promises(shop)
    assert verify(merchant=shop.merchant).problems == ()


def assert_ledger(shop: Shop) -> None:
    """As `assert_clean`, where somebody else has charged at the same provider."""
    assert_totals(shop)
    assert_next_steps(shop)
    assert_slots(shop)
    assert verify(merchant=shop.merchant).problems == ()


def sandbox_endpoint(shop: Shop) -> WebhookEndpoint:
    """The merchant's second endpoint: the sandbox's own webhooks."""
    found = WebhookEndpoint.objects.filter(merchant=shop.merchant, provider="sandbox").first()
    return found or endpoint_create(
        merchant=shop.merchant, provider="sandbox", secret=HOOK.secret, connection=shop.connection
    )


def sandbox_tells(shop: Shop, kind: str, data: dict[str, Any], name: str = "") -> int:
    """The sandbox's webhook about a charge or refund (`data` as its API shows it); how many items were new."""
    event = Event(name or f"evt_{data['id']}_{data['status']}", kind, data["created_at"], data)
    body, headers = signed(event, HOOK, database_now())
    return inbox_receive(
        endpoint=sandbox_endpoint(shop),
        request=InboundRequest(body=body, headers=headers),
        now=shop.at,
        clock=float(headers["webhook-timestamp"]),
        tolerance_seconds=300,
    )


def shown(shop: Shop, kind: str, provider_id: str) -> dict[str, Any]:
    """A charge or refund as the sandbox's API shows it now."""
    answer = requests.get(f"{shop.sandbox.url}/{kind}s/{provider_id}", timeout=10)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found
