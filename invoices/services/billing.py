"""Invoices, their charge transactions and what was paid. Everything here needs the locks of DESIGN section 6."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from django.db import transaction

from invoices.models import Customer, Invoice, ProviderPayment, Transaction
from invoices.services.ledger import Stamp, invoice_is_ours, invoice_lock, move, record_event
from invoices.services.parties import customer_lock
from invoices.services.reviews import review_open
from invoices.states import (
    INVOICE_OPEN,
    INVOICE_PAID,
    TRANSACTION_OPEN,
    DisputeStatus,
    InvoiceStatus,
    ReviewKind,
    TransactionKind,
    TransactionStatus,
)
from providers.base import InvoiceFacts
from recovery_site.common.compiled import Compiled, Param
from recovery_site.common.db import fit, for_no_key_update, prepared_cursor
from recovery_site.common.errors import Conflict
from recovery_site.common.in_step import ask
from recovery_site.common.rows import row_insert, row_save, turned

_DESCRIPTIVE = ("number", "description", "subscription_id", "plan", "interval")
# What else a biller tells about its invoice.
_TOLD = ("described_at", "provider_retry_at", "provider_attempt_count", "issued_at", "due_at", "collection_stopped")
# The cancel reason of an invoice that turned out to be another one's second half.
SUPERSEDED = "superseded"


def invoice_create(
    *, customer: Customer, facts: InvoiceFacts, provider_invoice_id: str | None, stamp: Stamp
) -> Invoice:
    """A new locked invoice under its customer's lock; writes `invoice.created`. A zero amount is settled at once."""
    invoice = Invoice(
        merchant_id=customer.merchant_id,
        connection_id=customer.connection_id,
        customer=customer,
        provider_invoice_id=provider_invoice_id or None,
        amount_minor=facts.amount_minor,
        currency=facts.currency,
        issued_at=facts.issued_at or stamp.now,
        due_at=facts.due_at,
        **{field: fit(Invoice, field, getattr(facts, field)) for field in _DESCRIPTIVE},
    )
    row_insert(invoice)
    invoice_is_ours(invoice)
    record_event(
        invoice=invoice,
        kind="invoice.created",
        stamp=stamp,
        to_state=invoice.status,
        data={"amount_minor": invoice.amount_minor, "currency": invoice.currency},
    )
    if invoice.amount_minor == 0:
        move(invoice, "settle", invoice=invoice, stamp=stamp, settled_at=stamp.now)
    return invoice


def invoice_describe(invoice: Invoice, facts: InvoiceFacts, *, told_at: datetime, stamp: Stamp) -> None:
    """Take over the biller's newer description; one that is older than the last changes nothing."""
    if invoice.described_at is not None and told_at < invoice.described_at:
        return
    changed = ["described_at"]
    invoice.described_at = told_at
    for field in _DESCRIPTIVE:
        value = fit(Invoice, field, getattr(facts, field))
        if value and value != getattr(invoice, field):
            setattr(invoice, field, value)
            changed.append(field)
    if facts.amount_told and _amount_change(invoice, facts.amount_minor, facts.currency, stamp):
        changed += ["amount_minor", "currency"]
    if facts.attempt_count is not None and facts.attempt_count > invoice.provider_attempt_count:
        invoice.provider_attempt_count = facts.attempt_count
        changed.append("provider_attempt_count")
    if invoice.provider_retry_at != facts.next_retry_at:
        invoice.provider_retry_at = facts.next_retry_at
        changed.append("provider_retry_at")
    row_save(invoice, *changed)


def _amount_change(invoice: Invoice, amount_minor: int, currency: str, stamp: Stamp) -> bool:
    """Set what an open invoice owes, unsaved; writes `invoice.amount_changed` and returns True if it is new."""
    before = (invoice.amount_minor, invoice.currency)
    if invoice.status not in INVOICE_OPEN or before == (amount_minor, currency):
        return False
    record_event(
        invoice=invoice,
        kind="invoice.amount_changed",
        stamp=stamp,
        data={"from": list(before), "to": [amount_minor, currency]},
    )
    invoice.amount_minor, invoice.currency = amount_minor, currency
    if before[1] != currency:
        totals_refresh(invoice)  # what came in the old currency pays nothing of the new one
    return True


def invoice_name(invoice: Invoice, provider_invoice_id: str, stamp: Stamp) -> None:
    """The provider's id of an invoice that was so far known only by its payment."""
    invoice.provider_invoice_id = provider_invoice_id
    row_save(invoice, "provider_invoice_id")
    record_event(invoice=invoice, kind="invoice.named", stamp=stamp, data={"provider_invoice_id": provider_invoice_id})


def invoice_hand_over(shell: Invoice, heir: Invoice, stamp: Stamp) -> None:
    """The provider's name and description go from a superseded invoice to the one that has the payments.

    Writes `invoice.superseded` and `invoice.named`, and `invoice.amount_changed` if the named one owes something else.
    """
    name, shell.provider_invoice_id, shell.cancel_reason = shell.provider_invoice_id, None, SUPERSEDED
    shell.save(update_fields=["provider_invoice_id", "cancel_reason"])
    record_event(invoice=shell, kind="invoice.superseded", stamp=stamp, data={"by": heir.public_id})
    _amount_change(heir, shell.amount_minor, shell.currency, stamp)
    fields = (*_DESCRIPTIVE, *_TOLD)
    for field in fields:
        setattr(heir, field, getattr(shell, field))
    heir.save(update_fields=["amount_minor", "currency", *fields])
    invoice_name(heir, name or "", stamp)


def invoices_rename(first: Invoice, second: Invoice, stamp: Stamp) -> None:
    """Exchange the provider's names and descriptions of two invoices that owe the same; writes two `invoice.named`."""
    names = first.provider_invoice_id or "", second.provider_invoice_id or ""
    first.provider_invoice_id = None
    first.save(update_fields=["provider_invoice_id"])
    fields = (*_DESCRIPTIVE, *_TOLD)
    for field in fields:
        ours, theirs = getattr(first, field), getattr(second, field)
        setattr(first, field, theirs)
        setattr(second, field, ours)
    for invoice, name in ((second, names[0]), (first, names[1])):
        row_save(invoice, *fields)
        invoice_name(invoice, name, stamp)


_LINKED = Compiled(
    lambda: ProviderPayment.objects.filter(
        connection=Param("connection"), provider_payment_id=Param("payment")
    ).values_list("pk", flat=True)
)


def payment_link(invoice: Invoice, payment_id: str) -> None:
    """Remember that a provider's payment belongs to this invoice; the first word stands."""
    if payment_id and not _LINKED.all(connection=invoice.connection_id, payment=payment_id):
        link = ProviderPayment(
            merchant_id=invoice.merchant_id,
            connection_id=invoice.connection_id,
            provider_payment_id=payment_id,
            invoice=invoice,
        )
        row_insert(link, unless_there=True)


_OPEN_CHARGE = Compiled(
    lambda: for_no_key_update(
        Transaction.objects.filter(invoice=Param("invoice"), kind=TransactionKind.CHARGE, status__in=TRANSACTION_OPEN)
    )
)


def open_charge(invoice: Invoice) -> Transaction | None:
    """The invoice's open CHARGE transaction, if any (at most one by constraint); covered by the invoice's lock."""
    return _OPEN_CHARGE.first(invoice=invoice.pk)


def charge_create(
    invoice: Invoice,
    *,
    amount_minor: int,
    currency: str,
    stamp: Stamp,
    duplicate_of: Transaction | None = None,
) -> Transaction:
    """A new CHARGE transaction (INIT); writes `transaction.created`."""
    charge = Transaction(
        merchant_id=invoice.merchant_id,
        invoice=invoice,
        amount_minor=amount_minor,
        currency=currency,
        duplicate_of=duplicate_of,
        started_at=stamp.now,
        created_by=stamp.actor,
    )
    row_insert(charge)
    record_event(
        invoice=invoice,
        kind="transaction.created",
        stamp=stamp,
        subject_type="transaction",
        subject_id=charge.public_id,
        to_state=charge.status,
        data={"kind": charge.kind, "amount_minor": amount_minor, "currency": currency},
    )
    return charge


def charge_for_due(invoice: Invoice, stamp: Stamp) -> Transaction:
    """The open CHARGE transaction for exactly what is due now; one that differs is canceled and replaced.

    A transaction with an attempt in flight (PROCESSING) cannot be canceled and is returned as it is.
    """
    charge = open_charge(invoice)
    if charge is not None and charge.status != TransactionStatus.PROCESSING:
        if (charge.amount_minor, charge.currency) == (invoice.due_minor, invoice.currency):
            return charge
        move(
            charge,
            "cancel",
            invoice=invoice,
            stamp=stamp.because("amount due changed"),
            finished_at=stamp.now,
        )
        charge = None
    return charge or charge_create(invoice, amount_minor=invoice.due_minor, currency=invoice.currency, stamp=stamp)


_TOTALS = """
UPDATE invoices_invoice invoice SET paid_minor = done.paid - lost.total, refunded_minor = done.refunded,
    credited_minor = done.credited
FROM unnest(%(invoices)s::bigint[], %(currencies)s::text[]) asked(invoice, currency), LATERAL (
    SELECT COALESCE(sum(captured_minor) FILTER (WHERE kind = 'CHARGE' AND currency = asked.currency), 0) AS paid,
        COALESCE(sum(captured_minor) FILTER (
            WHERE kind = 'REFUND' AND currency = asked.currency AND reversed_at IS NULL), 0) AS refunded,
        COALESCE(sum(settles_minor) FILTER (WHERE kind = 'CHARGE' AND NOT EXISTS (
            SELECT 1 FROM invoices_dispute dispute JOIN invoices_attempt attempt ON attempt.id = dispute.attempt_id
            WHERE attempt.transaction_id = charge.id AND dispute.invoice_id = asked.invoice
                AND dispute.status = 'LOST' AND dispute.applied_at IS NOT NULL)), 0) AS credited
    FROM invoices_transaction charge WHERE invoice_id = asked.invoice AND status = 'DONE'
) done, LATERAL (
    SELECT COALESCE(sum(LEAST(disputed, brought)), 0) AS total FROM (
        SELECT sum(dispute.amount_minor) AS disputed, COALESCE(attempt.captured_minor, 0) AS brought
        FROM invoices_dispute dispute JOIN invoices_attempt attempt ON attempt.id = dispute.attempt_id
        WHERE dispute.invoice_id = asked.invoice AND dispute.status = 'LOST' AND dispute.applied_at IS NOT NULL
            AND attempt.currency = asked.currency
        GROUP BY attempt.id
    ) per_payment
) lost
WHERE invoice.id = asked.invoice
RETURNING invoice.id, invoice.paid_minor, invoice.refunded_minor, invoice.credited_minor
"""


def totals_refresh(invoice: Invoice) -> None:
    """Recompute what was paid, credited and refunded from the transactions that carry the truth.

    A reversed charge (bank return, lost dispute that took effect) no longer counts, neither as paid nor as credited. Of
    one payment no more is taken back than it brought, however many disputes name it and whatever fees they include.
    """
    totals = ask("totals", _totals, (invoice.pk, invoice.currency), writes=True)
    invoice.paid_minor, invoice.refunded_minor, invoice.credited_minor = totals


def _totals(many: Sequence[tuple[int, str]]) -> list[tuple[int, int, int]]:
    invoices, currencies = turned(many)
    with prepared_cursor() as cursor:
        cursor.execute(_TOTALS, {"invoices": invoices, "currencies": currencies})
        told = {pk: totals for pk, *totals in cursor.fetchall()}
    return [told[pk] for pk, _ in many]


def charge_credit(invoice: Invoice, charge: Transaction, stamp: Stamp) -> int:
    """A person says that this money in another currency pays all that is due: that much is credited, in the invoice's
    currency; what came in stays what it was. Returns the credit; writes `transaction.credit`.

    Raises Conflict if nothing is due, or if the money did not stay.
    """
    if charge.status != TransactionStatus.DONE or charge.currency == invoice.currency:
        raise Conflict("Only money that came in, in another currency than the invoice's, can be counted this way.")
    if invoice.status not in INVOICE_OPEN or invoice.due_minor == 0:
        raise Conflict(f"Invoice {invoice} is {invoice.status}: nothing is due that this money could pay.")
    if Transaction.objects.filter(refund_of=charge, status__in=(*TRANSACTION_OPEN, TransactionStatus.DONE)).exists():
        raise Conflict("This money was given back, or is on its way back: it can pay nothing.")
    if invoice.disputes.filter(attempt__transaction=charge).exclude(status=DisputeStatus.WON).exists():
        raise Conflict("This money is disputed or was returned: it can pay nothing.")
    charge.settles_minor = invoice.due_minor
    row_save(charge, "settles_minor")
    record_event(
        invoice=invoice,
        kind="transaction.credit",
        stamp=stamp,
        subject_type="transaction",
        subject_id=charge.public_id,
        data={
            "settles_minor": charge.settles_minor,
            "currency": invoice.currency,
            "received": [charge.captured_minor, charge.currency],
        },
    )
    totals_refresh(invoice)
    return charge.settles_minor


class PaymentEffect(StrEnum):
    """What a payment did to its invoice."""

    SETTLED = "settled"
    PARTIAL = "partial"
    WRONG_CURRENCY = "wrong_currency"
    PAID_TWICE = "paid_twice"
    PAID_AFTER_CANCEL = "paid_after_cancel"


def charge_succeeded(invoice: Invoice, charge: Transaction, *, captured_minor: int, stamp: Stamp) -> PaymentEffect:
    """A charge brought in `captured_minor` of its own currency: DONE, and the invoice settles once nothing is due.

    Money for a canceled invoice, money beyond the amount owed and money in another currency are recorded like any
    other and put before staff; nothing is ever refused.
    """
    already_paid = invoice.status in INVOICE_PAID
    duplicate = {}
    if already_paid and charge.duplicate_of_id is None:
        duplicate["duplicate_of"] = (
            Transaction.objects.filter(invoice=invoice, kind=TransactionKind.CHARGE, status=TransactionStatus.DONE)
            .exclude(pk=charge.pk)
            .order_by("id")
            .first()
        )
    move(
        charge,
        "succeed",
        invoice=invoice,
        stamp=stamp,
        captured_minor=captured_minor,
        finished_at=stamp.now,
        data={"captured_minor": captured_minor, "currency": charge.currency},
        **duplicate,
    )
    totals_refresh(invoice)
    if charge.currency != invoice.currency:
        _ask(invoice, charge, ReviewKind.WRONG_CURRENCY, stamp)
    if already_paid:
        _ask(invoice, charge, ReviewKind.PAID_TWICE, stamp)
        return PaymentEffect.PAID_TWICE
    if invoice.status == InvoiceStatus.CANCELED:
        _ask(invoice, charge, ReviewKind.PAID_AFTER_CANCEL, stamp)
        return PaymentEffect.PAID_AFTER_CANCEL
    if charge.currency != invoice.currency:
        return PaymentEffect.WRONG_CURRENCY
    if invoice.due_minor > 0:
        return PaymentEffect.PARTIAL
    if invoice.paid_minor > invoice.amount_minor - invoice.credited_minor:
        _ask(invoice, charge, ReviewKind.OVERPAID, stamp)
    move(invoice, "settle", invoice=invoice, stamp=stamp, settled_at=stamp.now)
    return PaymentEffect.SETTLED


def paid_after_cancel(invoice: Invoice, stamp: Stamp) -> None:
    """Put before staff what was paid of an invoice that turns out to have been canceled."""
    for charge in Transaction.objects.filter(
        invoice=invoice, kind=TransactionKind.CHARGE, status=TransactionStatus.DONE
    ).order_by("id"):
        _ask(invoice, charge, ReviewKind.PAID_AFTER_CANCEL, stamp)


def _ask(invoice: Invoice, charge: Transaction, kind: ReviewKind, stamp: Stamp) -> None:
    may_pay = kind is ReviewKind.WRONG_CURRENCY and invoice.status in INVOICE_OPEN
    review_open(
        invoice=invoice,
        kind=kind,
        subject_type="transaction",
        subject_id=charge.public_id,
        facts={
            "captured_minor": charge.captured_minor,
            "currency": charge.currency,
            "invoice_amount_minor": invoice.amount_minor,
            "invoice_currency": invoice.currency,
            "invoice_status": invoice.status,
        },
        choices=[*(["pays"] if may_pay else []), "refund", "keep"],
        stamp=stamp,
    )


@transaction.atomic
def collection_stop_note(*, invoice_pk: int, answer: str, now: datetime) -> None:
    """Keep the biller's answer to switching its own collection off; writes `invoice.collection_stopped`."""
    customer_pk = Invoice.objects.values_list("customer_id", flat=True).get(pk=invoice_pk)
    customer_lock(customer_pk)
    invoice = invoice_lock(invoice_pk)
    invoice.collection_stopped = fit(Invoice, "collection_stopped", answer)
    row_save(invoice, "collection_stopped")
    stamp = Stamp(actor="system:engine", cause="before our first charge", now=now)
    record_event(invoice=invoice, kind="invoice.collection_stopped", stamp=stamp, data={"answer": answer[:200]})
