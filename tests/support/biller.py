"""A merchant whose invoices belong to a billing system, on an imitation of it; driven through the front doors only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import uuid4

from django.db.models.functions import Now

from accounts.models import Merchant
from accounts.services import merchant_create
from invoices.models import Attempt, BillerNote, Connection, Invoice, OutboxMessage, ReviewItem
from invoices.services.notes import NAME
from invoices.services.outbox import OutboxCounts, outbox_drain
from invoices.services.parties import connection_create
from providers.base import (
    CustomerFacts,
    DeclineFacts,
    EventKind,
    InvoiceFacts,
    MethodFacts,
    PaymentEvent,
    PaymentFacts,
)
from retries.engine.drain import DrainCounts, retries_drain
from retries.handler import Handled, event_handle
from retries.models import Case, RetryJob
from retries.reconciliation import ReconcileCounts, reconcile
from tests.contract.wire.server import Imitation
from tests.support.quiet import quiet

_serial = count(1)


@dataclass
class BillerShop:
    """`at` is the shop's clock; it begins some days ago, because the imitations date what comes by the machine's."""

    biller: Imitation
    invoice_id: str
    config: Mapping[str, Any] = field(default_factory=dict)
    gateway: Imitation | None = None
    at: datetime = field(default_factory=lambda: datetime.now(UTC) - timedelta(days=7))
    merchant: Merchant = field(init=False)
    connection: Connection = field(init=False)
    account: Connection | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.merchant = merchant_create(name=f"biller shop {uuid4().hex[:8]}").merchant
        if self.gateway is not None:
            self.account = self.connect(self.gateway, mode="observe")
        named = {"gateway": self.account.public_id, "mode": "charge"} if self.account else {}
        self.connection = self.connect(self.biller, **{"mode": "collect", **named, **self.config})

    def connect(self, imitation: Imitation, **more: Any) -> Connection:
        config = {**imitation.config, "base_url": imitation.url, "timeout_seconds": 20, **more}
        return connection_create(merchant=self.merchant, provider=imitation.provider, config=config)

    def tell(self, event: PaymentEvent, connection: Connection | None = None) -> Handled:
        told: Handled = event_handle(event=event, connection=connection or self.connection, cause="test", now=self.at)
        return told

    def failed(self, charge_id: str = "", *, attempt_count: int = 1, retry_in: timedelta | None = None) -> Handled:
        """The biller tells that its own charge of the invoice was declined."""
        name = charge_id or f"txn_theirs_{next(_serial)}"
        return self.tell(self.payment(EventKind.PAYMENT_FAILED, name, attempt_count=attempt_count, retry_in=retry_in))

    def payment(
        self,
        kind: EventKind,
        charge_id: str,
        *,
        amount_minor: int = 4900,
        attempt_count: int = 1,
        retry_in: timedelta | None = None,
        **more: Any,
    ) -> PaymentEvent:
        failed = kind is EventKind.PAYMENT_FAILED
        return PaymentEvent(
            kind=kind,
            provider=self.biller.provider,
            event_id=f"ev_{next(_serial)}",
            event_type="payment",
            occurred_at=self.at,
            customer=CustomerFacts(id="cus_1"),
            invoice=InvoiceFacts(
                id=self.invoice_id,
                amount_minor=4900,
                currency="EUR",
                attempt_count=attempt_count,
                next_retry_at=self.at + retry_in if retry_in else None,
                status="open" if failed else "paid",
            ),
            payment=PaymentFacts(
                charge_id=charge_id,
                amount_minor=amount_minor,
                currency="EUR",
                invoice_id=self.invoice_id,
                method=MethodFacts(token="pm_1"),
                decline=DeclineFacts(raw_code="insufficient_funds") if failed else None,
                occurred_at=self.at,
                **more,
            ),
        )

    def retry(self) -> DrainCounts:
        """Go to the booked retry and run what is due then."""
        self.at = max(self.at, self.job().due_at)
        return retries_drain(now=self.at)

    def reconcile(self, **later: float) -> ReconcileCounts:
        self.at += timedelta(**later)
        Attempt.objects.filter(merchant=self.merchant, lease_until__isnull=False).update(
            lease_until=Now() - timedelta(hours=1)
        )
        return reconcile(now=self.at, drain=True)

    def deliver(self) -> OutboxCounts:
        """Give the biller what is due for it; back-off has passed."""
        mine = OutboxMessage.objects.filter(merchant=self.merchant, done_at=None, dead_at=None)
        mine.exclude(consumer=NAME).update(done_at=Now())
        mine.filter(consumer=NAME).update(due_at=Now())
        quiet()
        return outbox_drain(now=self.at)

    def invoice(self) -> Invoice:
        return Invoice.objects.get(connection=self.connection, provider_invoice_id=self.invoice_id)

    def case(self) -> Case:
        return Case.objects.filter(invoice=self.invoice()).latest("id")

    def job(self) -> RetryJob:
        return RetryJob.objects.filter(merchant=self.merchant).latest("id")

    def attempts(self) -> list[Attempt]:
        return list(Attempt.objects.filter(invoice=self.invoice()).order_by("id"))

    def ours(self) -> Attempt:
        return Attempt.objects.filter(invoice=self.invoice(), origin="OURS").latest("id")

    def notes(self) -> list[BillerNote]:
        return list(BillerNote.objects.filter(merchant=self.merchant).order_by("id"))

    def reviews(self) -> list[str]:
        open_ones = ReviewItem.objects.filter(merchant=self.merchant, resolved_at=None)
        return sorted(open_ones.values_list("kind", flat=True))

    def alerts(self) -> list[str]:
        events = self.invoice().events.filter(kind__startswith="alert.").order_by("seq")
        return [kind.removeprefix("alert.") for kind in events.values_list("kind", flat=True)]
