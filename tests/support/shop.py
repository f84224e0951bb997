"""A merchant with a sandbox account and a Stripe-shaped webhook endpoint, driven through the front doors only."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import uuid4

from django.db.models.functions import Now

from accounts.models import Merchant
from accounts.services import merchant_create
from invoices.models import Attempt, Connection, Customer, Invoice, ReviewItem
from invoices.services.ledger import Stamp
from invoices.services.parties import connection_create
from retries.engine.drain import DrainCounts, retries_drain
from retries.models import Case, RetryJob
from retries.reconciliation import ReconcileCounts, reconcile
from retries.services.manual import case_pause, case_resume, invoice_cancel, retry_now
from tests.support.sandbox import Sandbox
from tests.support.stripe import CLOCK, OLD, SECRET, Bill, StripeEvent
from tokens.models import Card, Token
from webhooks.models import InboxEvent, WebhookEndpoint
from webhooks.services import InboxCounts, endpoint_create, inbox_drain, inbox_receive
from webhooks.states import InboxStatus

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
_serial = count(1)


@dataclass
class Shop:
    """`at` is the shop's virtual clock; everything that decides is given it. Names are unique per shop."""

    sandbox: Sandbox
    config: dict[str, Any] = field(default_factory=dict)
    at: datetime = NOW
    merchant: Merchant = field(init=False)
    connection: Connection = field(init=False)
    endpoint: WebhookEndpoint = field(init=False)
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = f"{next(_serial)}{uuid4().hex[:6]}"
        self.merchant = merchant_create(name=f"shop {self.name}").merchant
        config = {"api_key": "k", "base_url": self.sandbox.url, "mode": "charge", "timeout_seconds": 1, **self.config}
        self.connection = connection_create(merchant=self.merchant, provider="sandbox", config=config)
        self.endpoint = endpoint_create(
            merchant=self.merchant, provider="stripe", secret=SECRET, connection=self.connection
        )

    # --- time -----------------------------------------------------------------------------------------------------

    def wait(self, **gap: float) -> datetime:
        """Let time pass; waiting inbox items get their next turn."""
        self.at += timedelta(**gap)
        InboxEvent.objects.filter(endpoint=self.endpoint, status=InboxStatus.RECEIVED).update(due_at=Now())
        return self.at

    def wait_until(self, at: datetime) -> datetime:
        return self.wait(seconds=max(0.0, (at - self.at).total_seconds()))

    def wait_for(self, bill: Bill) -> datetime:
        """Until the retry of this bill is due."""
        return self.wait_until(self.job(bill).due_at)

    # --- what Stripe tells ----------------------------------------------------------------------------------------

    def bill(self, token: str = "tok_ok", *, customer: str = "", **known: Any) -> Bill:
        """A new invoice at Stripe. The token's behaviour at the sandbox follows from the name it is given here."""
        key = f"{self.name}_{next(_serial)}"
        customer = customer or f"cus_{key}"
        token = token if "__" in token else f"{token}__{key}"
        return Bill(key=key, token=token, customer=customer, at=self.at, **{"version": OLD, **known})

    def receive(self, *events: StripeEvent) -> int:
        """Deliver signed events to the inbox; how many items were new."""
        return sum(
            inbox_receive(
                endpoint=self.endpoint, request=event.request(), now=self.at, clock=CLOCK, tolerance_seconds=300
            )
            for event in events
        )

    def tell(self, *events: StripeEvent) -> InboxCounts:
        """Deliver the events one by one, each processed before the next comes; nothing may end FAILED."""
        total = InboxCounts()
        for event in events:
            self.receive(event)
            counts = self.process()
            total.processed += counts.processed
            total.ignored += counts.ignored
        return total

    def process(self) -> InboxCounts:
        counts = inbox_drain(now=self.at)
        assert counts.failed == 0, self.refused()
        return counts

    def refused(self) -> list[tuple[str, str]]:
        """Inbox items that ended FAILED or were pushed back by an error, with the reason."""
        items = InboxEvent.objects.filter(endpoint=self.endpoint).order_by("id")
        return [
            (item.event_type, item.reason) for item in items if item.status == InboxStatus.FAILED or item.attempts > 0
        ]

    def waiting(self) -> list[str]:
        items = InboxEvent.objects.filter(endpoint=self.endpoint, status=InboxStatus.RECEIVED)
        return list(items.order_by("id").values_list("event_type", flat=True))

    def fail(self, bill: Bill, **known: Any) -> None:
        """One failed charge at Stripe now, told by its four events in their usual order."""
        self.tell(*bill.attempt(self.at, **known).failed())

    def failed_bill(self, token: str = "tok_ok", *, code: str = "insufficient_funds", **known: Any) -> Bill:
        """A new invoice whose first charge has just failed."""
        bill = self.bill(token, **known)
        self.fail(bill, code=code)
        return bill

    # --- what we do -----------------------------------------------------------------------------------------------

    def drain(self) -> DrainCounts:
        return retries_drain(now=self.at)

    def reconcile(self) -> ReconcileCounts:
        return reconcile(now=self.at, drain=True)

    def retry(self, bill: Bill) -> DrainCounts:
        """Wait until the bill's retry is due and run what is due then."""
        self.wait_for(bill)
        return self.drain()

    def expire_leases(self) -> None:
        """As if the database's clock had moved past every lease: the worker that held it is gone."""
        past = Now() - timedelta(hours=1)
        Attempt.objects.filter(merchant=self.merchant, lease_until__isnull=False).update(lease_until=past)
        RetryJob.objects.filter(merchant=self.merchant, lease_until__isnull=False).update(lease_until=past)

    def staff(self, cause: str = "test") -> Stamp:
        return Stamp(actor="user:ann", cause=cause, now=self.at)

    def pause(self, bill: Bill) -> None:
        case_pause(invoice_pk=self.invoice(bill).pk, stamp=self.staff(), reason="customer asked")

    def resume(self, bill: Bill) -> None:
        case_resume(invoice_pk=self.invoice(bill).pk, stamp=self.staff(), reason="go on")

    def cancel(self, bill: Bill, *, write_off: bool = False) -> None:
        invoice_cancel(invoice_pk=self.invoice(bill).pk, stamp=self.staff(), reason="given up", write_off=write_off)

    def retry_now(self, bill: Bill, **known: Any) -> RetryJob:
        return retry_now(invoice_pk=self.invoice(bill).pk, stamp=self.staff(), reason="customer called", **known)

    # --- reading --------------------------------------------------------------------------------------------------

    def invoice(self, bill: Bill) -> Invoice:
        return Invoice.objects.get(connection=self.connection, provider_invoice_id=bill.id)

    def case(self, bill: Bill) -> Case:
        """The newest case of the bill's invoice."""
        return Case.objects.filter(invoice=self.invoice(bill)).latest("id")

    def job(self, bill: Bill) -> RetryJob:
        """The newest job of the bill's invoice."""
        return RetryJob.objects.filter(invoice=self.invoice(bill)).latest("id")

    def attempts(self, bill: Bill) -> list[Attempt]:
        return list(Attempt.objects.filter(invoice=self.invoice(bill), kind="CHARGE").order_by("id"))

    def attempt(self, bill: Bill) -> Attempt:
        """Our newest charge of the bill."""
        return Attempt.objects.filter(invoice=self.invoice(bill), kind="CHARGE", origin="OURS").latest("id")

    def token(self, bill: Bill) -> Token:
        return Token.objects.get(connection=self.connection, provider_token=bill.token)

    def card(self, bill: Bill) -> Card:
        return self.token(bill).card

    def customer(self, bill: Bill) -> Customer:
        return Customer.objects.get(connection=self.connection, connector_customer_id=bill.customer)

    def reviews(self, bill: Bill) -> list[str]:
        """Kinds of the open questions about the bill's invoice."""
        open_ones = ReviewItem.objects.filter(invoice=self.invoice(bill), resolved_at=None)
        return sorted(open_ones.values_list("kind", flat=True))

    def alerts(self, bill: Bill) -> list[str]:
        events = self.invoice(bill).events.filter(kind__startswith="alert.").order_by("seq")
        return [kind.removeprefix("alert.") for kind in events.values_list("kind", flat=True)]

    def charged(self, bill: Bill) -> int:
        """Minor units that the sandbox has moved for this bill's customer."""
        return self.sandbox.paid(bill.customer)

    def outcome(self, bill: Bill) -> dict[str, Any]:
        """What the ledger finally says about a bill, without ids and times: equal for every order of the same facts.

        From basil on a failure whose payment is never joined to its invoice is known without its code. A FAILED charge
        is left out: it says that the plan had run out with what was known then.
        """
        invoice = self.invoice(bill)
        return {
            "invoice": invoice.status,
            "amount": (invoice.amount_minor, invoice.currency),
            "paid": invoice.paid_minor,
            "refunded": invoice.refunded_minor,
            "attempts": sorted(
                (attempt.kind, attempt.origin, attempt.status, attempt.raw_code if bill.old else "")
                for attempt in invoice.attempts.all()
            ),
            "transactions": sorted(
                invoice.transactions.exclude(status="FAILED").values_list("kind", "status", "amount_minor", "currency")
            ),
            "cases": sorted(
                (case.status, case.next_step, case.amount_minor, case.recovered_minor, case.recovered_by)
                + ((case.first_category, case.first_code, case.category, case.code) if bill.old else ())
                for case in invoice.cases.all()
            ),
            "disputes": sorted(invoice.disputes.values_list("status", flat=True)),
            "booked": RetryJob.objects.filter(invoice=invoice, status__in=("SCHEDULED", "QUEUED")).count(),
            "invoices": Invoice.objects.filter(customer=invoice.customer).exclude(cancel_reason="superseded").count(),
        }


def told(shop: Shop, order: Iterable[StripeEvent], bill: Bill) -> dict[str, Any]:
    """The outcome after the events came in this order."""
    shop.tell(*order)
    return shop.outcome(bill)
