"""Reports about payments: a failed, pending or successful try, told by however many events, is one attempt."""

from dataclasses import replace
from datetime import datetime, timedelta

from invoices.models import Connection
from invoices.services.ledger import Stamp
from invoices.states import Origin
from providers.base import ChargeResult, EventKind, InvoiceFacts, Outcome, PaymentEvent, PaymentFacts
from retries.engine.send import differences, mismatch_review
from retries.handler.entry import Entry, enter, enter_invoice
from retries.handler.joining import halves_find, payment_home
from retries.handler.resolve import EventWaits, Subject, subject_again
from retries.handler.tries import payment_report, refuse_while_sending, try_apply, try_guessed, try_known, try_learn
from retries.locking import Scope, open_case
from retries.services.planning import case_plan

_PATIENCE = timedelta(minutes=1)


def payment_handle(event: PaymentEvent, connection: Connection, subject: Subject, stamp: Stamp) -> str:
    """PAYMENT_FAILED, PAYMENT_SUCCEEDED and PAYMENT_PENDING."""
    payment = event.payment
    assert payment is not None
    if payment.undone and subject.attempt_pk is None:
        raise EventWaits("The payment that did not come after all is not known yet.", retry_after=_PATIENCE)
    if subject.customer_pk is None:
        return "The payment names no customer, so nobody could be asked or charged again."
    if payment.amount_minor == 0:
        return "A payment of zero moves no money."
    entry = enter(event, subject.customer_pk, stamp)
    subject = _at_home(event, connection, subject, entry, stamp)
    facts = event.invoice or _facts_of(payment, event.occurred_at)
    scope = enter_invoice(event, entry, subject, facts, stamp)
    attempt = known = try_known(scope.invoice, subject.attempt_pk, event)
    if attempt is None:
        refuse_while_sending(scope.invoice)
        failed = event.kind is EventKind.PAYMENT_FAILED
        attempt = payment_report(scope, entry, payment, event.occurred_at, stamp, failed=failed)
    elif attempt.origin == Origin.OURS and (wrong := differences(attempt, _told(event, payment))):
        mismatch_review(scope, attempt, wrong, _told(event, payment), stamp)
        return f"The provider's word differs from what was sent ({wrong}); staff were asked."
    if event.kind is EventKind.PAYMENT_SUCCEEDED and not payment.names_invoice:
        try_guessed(attempt)
    learned = try_learn(attempt, scope.invoice, payment, entry, stamp)
    try_apply(scope, attempt, event, connection, stamp, learned=learned)
    if not payment.names_invoice:
        halves_find(entry, scope.invoice, attempt.attempted_at, stamp)
    elif known is not None and event.invoice is not None and entry.invoice_news:
        _plan_anew(scope, stamp)
    return ""


def _at_home(event: PaymentEvent, connection: Connection, subject: Subject, entry: Entry, stamp: Stamp) -> Subject:
    """The subject with the invoice that a payment without a name of it belongs to, as far as is known now."""
    if subject.invoice_pk is None and event.payment is not None and not event.payment.names_invoice:
        # Whoever had the customer's lock may have written the other half, and no name would tell them apart.
        subject = subject_again(event, connection, entry.customer.pk, stamp.now)
    if subject.attempt_pk is None and subject.invoice_pk is not None:
        subject = replace(subject, invoice_pk=payment_home(entry, event, subject.invoice_pk, stamp))
    return subject


def _plan_anew(scope: Scope, stamp: Stamp) -> None:
    """The event told of a try that was known, and of its invoice what was not."""
    case = open_case(scope.invoice)
    if case is not None:
        case_plan(scope, case, stamp)


def _told(event: PaymentEvent, payment: PaymentFacts) -> ChargeResult:
    """What the event says of a charge that we sent, for comparison and for people to read."""
    outcome = {
        EventKind.PAYMENT_FAILED: Outcome.DECLINED,
        EventKind.PAYMENT_SUCCEEDED: Outcome.SUCCEEDED,
        EventKind.PAYMENT_PENDING: Outcome.AWAITING,
    }[event.kind]
    captured = payment.captured_minor if event.kind is EventKind.PAYMENT_SUCCEEDED else None
    amount = payment.amount_minor if captured is None else captured
    raw = {"event": event.event_id, "id": payment.charge_id, "amount_minor": amount, "currency": payment.currency}
    return ChargeResult(
        outcome=outcome,
        provider_id=payment.charge_id,
        payment_id=payment.payment_id,
        amount_minor=amount,
        currency=payment.currency,
        reference=payment.reference,
        raw={**raw, "status": outcome.value},
    )


def _facts_of(payment: PaymentFacts, at: datetime) -> InvoiceFacts:
    """An invoice as far as its payment tells."""
    return InvoiceFacts(
        id=payment.invoice_id,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        payment_id=payment.payment_id,
        issued_at=at,
    )
