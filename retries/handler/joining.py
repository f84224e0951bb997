"""Two rows for one debt: a payment that could not name its invoice, and that invoice (Stripe from basil on).

Usually the second half finds the first (`resolve`). Where events overtake each other both halves are rows by then, and
charging both would charge the customer twice; so one of them ends as superseded as soon as it is known.
"""

from datetime import datetime

from django.db.models import Exists, OuterRef, Q, QuerySet

from invoices.models import Attempt, Invoice, ProviderPayment
from invoices.services.attempts import charges_in_flight
from invoices.services.billing import SUPERSEDED, invoice_hand_over, invoices_rename, paid_after_cancel
from invoices.services.ledger import Stamp, invoice_lock, record_event
from invoices.services.reviews import review_open
from invoices.states import (
    ATTEMPT_OPEN,
    INVOICE_OPEN,
    INVOICE_PAID,
    AttemptStatus,
    InvoiceStatus,
    Origin,
    ReviewKind,
    TransactionKind,
)
from providers.base import PaymentEvent
from recovery_site.common.db import for_no_key_update
from recovery_site.common.rows import row_save
from retries.handler.entry import Entry
from retries.handler.moving import tries_move
from retries.handler.resolve import SAME_CHARGE_WITHIN, placeholders_of
from retries.handler.tries import GUESSED, refuse_while_sending
from retries.locking import Scope, open_case
from retries.models import Case
from retries.services.booking import job_end
from retries.services.cancel import invoice_end
from retries.services.cases import case_set_step
from retries.services.planning import case_plan
from retries.states import NextStep


def halves_find(entry: Entry, invoice: Invoice, at: datetime, stamp: Stamp) -> None:
    """After an event about `invoice` at `at`: join it with its other half, if the ledger has one.

    The other half has the same customer, amount and currency, and an attempt at the same time (a closed invoice without
    any attempt fits at any time). Of several equal ones the oldest is taken: they owe the same.
    """
    same = _alike(invoice)
    if invoice.cancel_reason == SUPERSEDED:
        return
    if invoice.provider_invoice_id is None:
        found = _shells(same).filter(_tried(at) | _untried()).first()
        if found is not None:
            halves_join(entry, born_pk=invoice.pk, named_pk=found.pk, stamp=stamp)
    elif _shells(Invoice.objects.filter(pk=invoice.pk)).exists():
        tried = Attempt.objects.filter(invoice=invoice).exists()
        unnamed = same.filter(provider_invoice_id=None, provider_payments__isnull=False)
        other = unnamed.filter(_tried(at)).first() if tried else unnamed.first()
        if other is not None:
            halves_join(entry, born_pk=other.pk, named_pk=invoice.pk, stamp=stamp)


def payment_found(entry: Entry, invoice: Invoice, at: datetime, stamp: Stamp) -> Invoice | None:
    """The invoice, unnamed so far, by which a payment of `at` is booked already; the named one that the biller speaks
    of, and has alone told of, is joined with it."""
    if not _shells(Invoice.objects.filter(pk=invoice.pk)).exists():
        return None
    unnamed = _alike(invoice).filter(provider_invoice_id=None, provider_payments__isnull=False)
    other = unnamed.filter(_tried(at, AttemptStatus.SUCCEEDED)).first()
    if other is None:
        return None
    halves_join(entry, born_pk=other.pk, named_pk=invoice.pk, stamp=stamp)
    return invoice_lock(other.pk)


def payment_misnamed(invoice: Invoice, at: datetime, stamp: Stamp) -> bool:
    """True if the payment of `at` that the biller speaks of stands in another invoice that owes the same, and only by a
    guess: both exchange their names."""
    other = _alike(invoice).filter(Exists(_guesses(at)), provider_invoice_id__isnull=False).first()
    if other is None:
        return False
    refuse_while_sending(invoice)  # its answer is about the invoice that had the name when it was sent
    names_swap(invoice.pk, other.pk, stamp)
    payment_vouched(other, at)
    return True


def payment_vouched(invoice: Invoice, at: datetime) -> None:
    """The biller has called an invoice paid: that its payment of that time is this one's is no guess any more."""
    for attempt in for_no_key_update(_guesses(at, invoice)):
        attempt.decision = {**attempt.decision, GUESSED: False}
        row_save(attempt, "decision")


def _guesses(at: datetime, invoice: Invoice | None = None) -> QuerySet[Attempt]:
    """Payments of that time (of an outer invoice if none is given) that no event has given to an invoice."""
    told = ProviderPayment.objects.filter(
        connection=OuterRef("connection"), provider_payment_id=OuterRef("provider_payment_id"), told=True
    )
    around = (at - SAME_CHARGE_WITHIN, at + SAME_CHARGE_WITHIN)
    payments = Attempt.objects.filter(
        invoice=OuterRef("pk") if invoice is None else invoice,
        kind=TransactionKind.CHARGE,
        status=AttemptStatus.SUCCEEDED,
        attempted_at__range=around,
        **{f"decision__{GUESSED}": True},
    )
    return payments.exclude(Exists(told))


def _alike(invoice: Invoice) -> QuerySet[Invoice]:
    """Other invoices that owe the same, oldest first."""
    same = Invoice.objects.filter(
        customer_id=invoice.customer_id, amount_minor=invoice.amount_minor, currency=invoice.currency
    )
    return same.exclude(pk=invoice.pk).exclude(cancel_reason=SUPERSEDED).order_by("pk")


def payment_home(entry: Entry, event: PaymentEvent, invoice_pk: int, stamp: Stamp) -> int:
    """The invoice that a payment of an unnamed one really belongs to, joined before it is booked on the wrong row."""
    payment = event.payment
    invoice = Invoice.objects.get(pk=invoice_pk)
    if payment is None or payment.names_invoice or invoice.provider_invoice_id is not None:
        return invoice_pk
    named = placeholders_of(payment, event.occurred_at, invoice.customer_id).exclude(provider_invoice_id=None)
    other = named.order_by("pk").values_list("pk", flat=True).first()
    if other is None:
        return invoice_pk
    halves_join(entry, born_pk=invoice_pk, named_pk=other, stamp=stamp)
    return other if Invoice.objects.filter(pk=other, provider_invoice_id__isnull=False).exists() else invoice_pk


def _shells(invoices: QuerySet[Invoice]) -> QuerySet[Invoice]:
    """Named invoices of which only the biller has told: no payment of theirs is known, no money, and nothing of ours
    that may still bring some."""
    attempts = Attempt.objects.filter(invoice=OuterRef("pk"), kind=TransactionKind.CHARGE)
    theirs = ~Q(origin=Origin.OURS) & (Q(provider_id__isnull=False) | ~Q(provider_payment_id=""))
    return invoices.filter(
        ~Exists(attempts.filter(theirs | Q(status__in=(AttemptStatus.SUCCEEDED, *ATTEMPT_OPEN)))),
        ~Exists(ProviderPayment.objects.filter(invoice=OuterRef("pk"))),
        provider_invoice_id__isnull=False,
        status__in=(*INVOICE_OPEN, InvoiceStatus.CANCELED),
    )


def _tried(at: datetime, *ends: AttemptStatus) -> Q:
    """Invoices with a try at that time, with one of these ends if any are given."""
    around = (at - SAME_CHARGE_WITHIN, at + SAME_CHARGE_WITHIN)
    tries = Attempt.objects.filter(invoice=OuterRef("pk"), kind="CHARGE", attempted_at__range=around)
    return Q(Exists(tries.filter(status__in=ends) if ends else tries))


def _untried() -> Q:
    return Q(~Exists(Attempt.objects.filter(invoice=OuterRef("pk"))), status=InvoiceStatus.CANCELED)


def halves_join(entry: Entry, *, born_pk: int, named_pk: int, stamp: Stamp) -> None:
    """Make one debt of the invoice born of a payment and the named one; needs the customer's and the cards' locks.

    The name goes to the row that has the payments. A named row with a history of its own keeps its name: then the other
    one ends, and where money has come in for it or may be on its way, people are asked before more is charged. Failed
    tries go to the row that stays.
    """
    born = Scope(customer=entry.customer, cards=entry.cards, invoice=invoice_lock(born_pk))
    named = Scope(customer=entry.customer, cards=entry.cards, invoice=invoice_lock(named_pk))
    if _shells(Invoice.objects.filter(pk=named_pk)).exists():
        _hand_over(named, born, stamp)
        return
    ProviderPayment.objects.filter(invoice=born.invoice).update(invoice=named.invoice)
    on_its_way = charges_in_flight(born.invoice)
    if born.invoice.status in INVOICE_OPEN:
        before = open_case(born.invoice)
        invoice_end(born, reason=SUPERSEDED, write_off=False, stamp=stamp)
        _next_in_line(named)
        tries_move(born, named, stamp)
        if (case := _carry_on(born.invoice, before, named, stamp)) is not None:
            case_plan(named, case, stamp)
    if on_its_way or born.invoice.paid_minor > 0:
        _ask(born, named, stamp)


def _hand_over(shell: Scope, heir: Scope, stamp: Stamp) -> None:
    end = shell.invoice.cancel_reason if shell.invoice.status == InvoiceStatus.CANCELED else ""
    before = open_case(shell.invoice)
    if shell.invoice.status in INVOICE_OPEN:
        invoice_end(shell, reason=SUPERSEDED, write_off=False, stamp=stamp)
        _next_in_line(heir)
    invoice_hand_over(shell.invoice, heir.invoice, stamp)
    tries_move(shell, heir, stamp)
    if end and heir.invoice.status in INVOICE_OPEN:
        invoice_end(heir, reason=end, write_off=end == "written_off", stamp=stamp)
        return
    if end:
        paid_after_cancel(heir.invoice, stamp)
    case = _carry_on(shell.invoice, before, heir, stamp)
    if case is not None:
        if case.code:
            case.hold_until = None
            case.save(update_fields=["hold_until"])
        case_plan(heir, case, stamp)


def _carry_on(shell: Invoice, before: Case | None, heir: Scope, stamp: Stamp) -> Case | None:
    """What people have decided of the row that ends holds for the one that stays: who looks after it, and that nothing
    is charged. Its case began when the first of both did. Returns the open case there."""
    if shell.assignee_id is not None and heir.invoice.assignee_id is None:
        heir.invoice.assignee_id = shell.assignee_id
        data = {"from": "", "to": f"user:{shell.assignee_id}"}
        record_event(
            invoice=heir.invoice, kind="staff.assign", stamp=stamp, data=data, saves=(heir.invoice, ["assignee"])
        )
    case = open_case(heir.invoice)
    if case is None or before is None:
        return case
    if before.paused_by != "configuration":
        case.paused_by = case.paused_by or before.paused_by
    case.automatic_barred = case.automatic_barred or before.automatic_barred
    case.opened_at = min(case.opened_at, before.opened_at)
    row_save(case, "paused_by", "automatic_barred", "opened_at")
    return case


def _next_in_line(scope: Scope) -> None:
    """The customer's slot that an ended invoice gives back may have gone to this one, which is another row since."""
    scope.invoice = invoice_lock(scope.invoice.pk)


def names_swap(first_pk: int, second_pk: int, stamp: Stamp) -> None:
    """Two invoices of one customer that owe the same had each other's name: the guess by amount and time was wrong.

    Needs the customer's lock.
    """
    invoices_rename(invoice_lock(first_pk), invoice_lock(second_pk), stamp)


def _ask(born: Scope, named: Scope, stamp: Stamp) -> None:
    if named.invoice.status not in (*INVOICE_OPEN, *INVOICE_PAID):
        return
    review_open(
        invoice=named.invoice,
        kind=ReviewKind.UNMATCHED_PAYMENT,
        subject_type="invoice",
        subject_id=named.invoice.public_id,
        facts={"paid_as": born.invoice.public_id, "paid_minor": born.invoice.paid_minor},
        choices=["noted"],
        stamp=stamp,
    )
    if named.invoice.status in INVOICE_PAID:
        return
    job_end(named, stamp)
    case = open_case(named.invoice)
    if case is not None:
        why = "A payment for it was booked on another invoice; a person has to look before more is charged."
        case_set_step(case, named.invoice, NextStep.STAFF, None, why, stamp)
