"""A small world for console tests, built through the front doors only: events in, retries drained, staff acting."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import uuid4

from accounts.models import Merchant, User
from accounts.services import membership_set, merchant_create
from invoices.models import Attempt, Connection, Invoice
from invoices.services.ledger import Stamp
from invoices.services.parties import connection_create
from providers.base import (
    CardFacts,
    ChargeResult,
    CustomerFacts,
    DeclineFacts,
    DisputeFacts,
    EventKind,
    InvoiceFacts,
    MethodFacts,
    Outcome,
    PaymentEvent,
    PaymentFacts,
    ProviderUncertain,
    RefundFacts,
)
from retries.engine.claim import jobs_claim
from retries.engine.prepare import Prepared, attempt_prepare
from retries.engine.send import charge_record
from retries.handler import event_handle
from retries.models import Case

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
_serial = count(1)


@dataclass
class World:
    """One merchant with one connection; `at` is its clock."""

    name: str = "Acme"
    provider: str = "simulator"
    at: datetime = NOW
    merchant: Merchant = field(init=False)
    connection: Connection = field(init=False)

    def __post_init__(self) -> None:
        self.merchant = merchant_create(name=self.name).merchant
        self.connection = connection_create(merchant=self.merchant, provider=self.provider, config={})

    # --- what a provider tells --------------------------------------------------------------------

    def tell(self, kind: EventKind, **facts: Any) -> None:
        number = next(_serial)
        event = PaymentEvent(
            kind=kind,
            provider=self.provider,
            event_id=f"evt_{number}",
            event_type=kind.value,
            occurred_at=facts.pop("occurred_at", self.at),
            **facts,
        )
        event_handle(event=event, connection=self.connection, cause=f"event:{event.event_id}", now=self.at)

    def fail(
        self,
        *,
        invoice: str = "",
        customer: str = "cus_ann",
        token: str = "tok_ok",
        code: str = "insufficient_funds",
        amount: int = 4_990,
        currency: str = "USD",
        network: str = "visa",
        last4: str = "4242",
        fingerprint: str = "",
        number: str = "",
        charge: str = "",
    ) -> Invoice:
        """The provider tells of a failed charge; the invoice it belongs to."""
        invoice = invoice or f"in_{next(_serial)}"
        payment = PaymentFacts(
            charge_id=charge or f"ch_{next(_serial)}",
            payment_id=f"pi_{invoice}",
            amount_minor=amount,
            currency=currency,
            invoice_id=invoice,
            method=method(token, network=network, last4=last4, fingerprint=fingerprint),
            decline=DeclineFacts(raw_code=code),
        )
        self.tell(
            EventKind.PAYMENT_FAILED,
            customer=CustomerFacts(id=customer, email=f"{customer}@example.com", name=customer[4:].title()),
            invoice=InvoiceFacts(id=invoice, amount_minor=amount, currency=currency, number=number, issued_at=self.at),
            payment=payment,
        )
        return self.get(invoice)

    def pay(self, invoice: Invoice, *, charge: str = "", amount: int | None = None, currency: str = "") -> Invoice:
        """The provider tells of a successful charge that we did not send."""
        self.tell(
            EventKind.PAYMENT_SUCCEEDED,
            customer=CustomerFacts(id=invoice.customer.connector_customer_id),
            payment=PaymentFacts(
                charge_id=charge or f"ch_{next(_serial)}",
                payment_id=f"pi_{next(_serial)}",
                amount_minor=invoice.amount_minor if amount is None else amount,
                currency=currency or invoice.currency,
                invoice_id=invoice.provider_invoice_id or "",
            ),
        )
        return self.again(invoice)

    def add_token(self, invoice: Invoice, token: str, **card: Any) -> None:
        self.tell(
            EventKind.METHOD_UPDATED,
            customer=CustomerFacts(id=invoice.customer.connector_customer_id),
            method=method(token, **card),
        )

    def dispute(self, charge: str, dispute: DisputeFacts) -> None:
        self.tell(EventKind.DISPUTE_UPDATED, dispute=dispute)

    def refund(self, refund: RefundFacts) -> None:
        self.tell(EventKind.REFUND_UPDATED, refunds=(refund,))

    # --- what we do -------------------------------------------------------------------------------

    def wait(self, **gap: float) -> None:
        self.at += timedelta(**gap)

    def send(self) -> list[Attempt]:
        """Claim what is due and commit the attempts as SENDING, as a worker does before it calls the provider."""
        lease = timedelta(minutes=5)
        prepared = [
            attempt_prepare(claim, now=self.at, lease=lease, timeout=timedelta(seconds=5))
            for claim in jobs_claim(now=self.at, lease=lease, limit=100)
        ]
        return [Attempt.objects.get(pk=one.attempt_pk) for one in prepared if isinstance(one, Prepared)]

    def answer(self, attempt: Attempt, answer: str) -> Attempt:
        """What the provider answered: "ok", "lost", "pending", "unsent" or a decline code."""
        found: ChargeResult | ProviderUncertain
        reference, provider_id = attempt.public_id, f"ch_{next(_serial)}"
        if answer == "lost":
            found = ProviderUncertain("No answer within 5 s.")
        elif answer == "unsent":
            found = ChargeResult(outcome=Outcome.ERRORED, error_code="unsent")
        elif answer in ("ok", "pending"):
            outcome = Outcome.SUCCEEDED if answer == "ok" else Outcome.AWAITING
            found = ChargeResult(outcome=outcome, provider_id=provider_id, reference=reference)
        else:
            decline = DeclineFacts(raw_code=answer)
            found = ChargeResult(
                outcome=Outcome.DECLINED, provider_id=provider_id, reference=reference, decline=decline
            )
        charge_record(attempt.pk, found, now=self.at)
        return Attempt.objects.get(pk=attempt.pk)

    def charge(self, answer: str) -> Attempt:
        """The one retry that is due goes out and is answered."""
        (attempt,) = self.send()
        return self.answer(attempt, answer)

    def stamp(self, actor: str = "system:engine", cause: str = "test") -> Stamp:
        return Stamp(actor=actor, cause=cause, now=self.at)

    # --- reading ----------------------------------------------------------------------------------

    def get(self, provider_invoice_id: str) -> Invoice:
        return Invoice.objects.select_related("merchant", "connection", "customer").get(
            connection=self.connection, provider_invoice_id=provider_invoice_id
        )

    def again(self, invoice: Invoice) -> Invoice:
        return Invoice.objects.select_related("merchant", "connection", "customer").get(pk=invoice.pk)

    def case(self, invoice: Invoice) -> Case:
        return Case.objects.filter(invoice=invoice).latest("id")

    def person(self, role: str | None = "support", *, username: str = "", **names: str) -> User:
        user = User.objects.create_user(username or f"user-{uuid4().hex[:8]}", password="pass-word-1", **names)
        if role is not None:
            membership_set(user=user, merchant=self.merchant, role=role)
        return user


def method(
    token: str, *, network: str = "visa", last4: str = "4242", fingerprint: str = "", **more: Any
) -> MethodFacts:
    """A payment method; its fingerprint follows from the token unless given."""
    return MethodFacts(
        token=token,
        card=CardFacts(
            fingerprint=fingerprint or f"fp_{token}", network=network, last4=last4, exp_month=12, exp_year=2030
        ),
        **more,
    )


def kinds(invoice: Invoice) -> Sequence[str]:
    return list(invoice.events.order_by("seq").values_list("kind", flat=True))
