"""One try of a locked invoice that somebody reports: which one it is, what is learned of it, how it ended."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from invoices.models import Attempt, Connection, Invoice, Transaction
from invoices.services.attempts import ReportedAttempt, attempt_count, attempt_report
from invoices.services.billing import charge_create, open_charge
from invoices.services.ledger import Stamp, move, record_event
from invoices.states import (
    ATTEMPT_OPEN,
    INVOICE_OPEN,
    AttemptStatus,
    ConnectionMode,
    InvoiceStatus,
    Origin,
    TransactionKind,
    TransactionStatus,
)
from providers.base import DeclineFacts, EventKind, PaymentEvent, PaymentFacts
from recovery_site.common.compiled import Compiled, Param
from recovery_site.common.db import for_no_key_update
from recovery_site.common.rows import row_save
from retries.handler.disputes import dispute_take_in
from retries.handler.entry import Entry, opened_at
from retries.handler.resolve import SAME_CHARGE_WITHIN, EventWaits
from retries.handler.undoing import return_of, undone_note, undone_since
from retries.locking import Scope, open_case
from retries.models import RetryJob
from retries.services import outcomes
from retries.services.cases import case_begin
from retries.states import JobStatus

# How long a payment that cannot name its invoice may still be claimed by one before it is charged on its own.
JOIN_WITHIN = timedelta(minutes=10)
_PENDING = timedelta(days=7)
_REFERENCE = 200

_KNOWN = Compiled(
    lambda: for_no_key_update(
        Attempt.objects.filter(pk=Param("pk"), invoice=Param("invoice"), kind=TransactionKind.CHARGE)
    )
)
# Tries around a time that may be the one that an event tells of.
_AROUND = Compiled(
    lambda: (
        for_no_key_update(Attempt.objects.filter(invoice=Param("invoice"), kind=TransactionKind.CHARGE))
        .filter(attempted_at__gte=Param("after"), attempted_at__lte=Param("before"))
        .order_by("pk")
    )
)
_SENDING = Compiled(
    lambda: Attempt.objects.filter(
        invoice=Param("invoice"), origin=Origin.OURS, status=AttemptStatus.SENDING
    ).values_list("pk", flat=True)[:1]
)


def try_known(invoice: Invoice, attempt_pk: int | None, event: PaymentEvent) -> Attempt | None:
    """The attempt this event tells of: by reference or charge id, else a placeholder of the same payment and time."""
    if attempt_pk is not None:
        (known,) = _KNOWN.all(pk=attempt_pk, invoice=invoice.pk)
        return known
    payment = event.payment
    assert payment is not None
    after, before = event.occurred_at - SAME_CHARGE_WITHIN, event.occurred_at + SAME_CHARGE_WITHIN
    tries = _AROUND.all(invoice=invoice.pk, after=after, before=before)
    nameless = [one for one in tries if _may_be(one, payment, _ENDS[event.kind])]
    if payment.payment_id:
        same = [one for one in nameless if one.provider_payment_id == payment.payment_id]
        nameless = same or [one for one in nameless if not one.provider_payment_id and one.provider_id is None]
    else:
        nameless = [one for one in nameless if not one.provider_payment_id]
    return next(iter(nameless), None)


_ENDS = {
    EventKind.PAYMENT_FAILED: AttemptStatus.DECLINED,
    EventKind.PAYMENT_SUCCEEDED: AttemptStatus.SUCCEEDED,
    EventKind.PAYMENT_PENDING: AttemptStatus.AWAITING,
}


def _may_be(attempt: Attempt, payment: PaymentFacts, end: AttemptStatus) -> bool:
    """Whether an event of this payment and `end` may tell of the attempt, as far as anything but its names says.

    A payment that we told the biller to make has its id only once the biller has said it.
    """
    if payment.charge_id and attempt.provider_id is not None:
        return False
    fitting = {end, AttemptStatus.AWAITING}
    if attempt.origin != Origin.OURS:
        return attempt.status in fitting
    money = (attempt.amount_minor, attempt.currency) == (payment.amount_minor, payment.currency)
    return attempt.collected and money and attempt.status in fitting | {AttemptStatus.UNKNOWN}


_BY_CHARGE = Compiled(
    lambda: Attempt.objects.filter(
        invoice=Param("invoice"), kind=TransactionKind.CHARGE, provider_id=Param("charge")
    ).values_list("pk", flat=True)[:1]
)


def try_counted(invoice: Invoice, *, charge_id: str, biller_number: int | None, at: datetime) -> bool:
    """True if the failed try that the biller speaks of is in the ledger already.

    By its charge id if it is named, else by the number that the biller gave it; a try of that time which has none yet
    is the one, and gets it.
    """
    if charge_id:
        return _BY_CHARGE.first(invoice=invoice.pk, charge=charge_id) is not None
    theirs = Attempt.objects.filter(invoice=invoice, kind=TransactionKind.CHARGE).exclude(origin=Origin.OURS)
    theirs = theirs.exclude(status=AttemptStatus.SUCCEEDED)
    if biller_number and theirs.filter(decision__biller_number=biller_number).exists():
        return True
    around = (at - SAME_CHARGE_WITHIN, at + SAME_CHARGE_WITHIN)
    near = [one for one in theirs.filter(attempted_at__range=around) if "biller_number" not in one.decision]
    if not near:
        return False
    tried = min(near, key=lambda one: abs(one.attempted_at - at))
    tried.decision = {**tried.decision, "biller_number": biller_number}
    tried.save(update_fields=["decision"])
    return True


def refuse_while_sending(invoice: Invoice) -> None:
    """DESIGN section 6: beside our own SENDING attempt a foreign charge cannot be told from ours yet."""
    if _SENDING.first(invoice=invoice.pk) is not None:
        raise EventWaits("A charge of this invoice is being sent; the event is matched when its result is known.")


def payment_report(
    scope: Scope,
    entry: Entry | None,
    payment: PaymentFacts,
    occurred_at: datetime,
    stamp: Stamp,
    *,
    failed: bool = False,
    biller_number: int | None = None,
) -> Attempt:
    """Insert an attempt that somebody else made, with a charge transaction to stand in.

    `biller_number`: how many tries the biller had counted with this one; it tells its tries apart later.
    """
    invoice = scope.invoice
    attempted_at = payment.occurred_at or occurred_at
    charge = charge_of_try(invoice, payment.amount_minor, payment.currency, attempted_at, stamp, failed=failed)
    keys = entry.method if entry else None
    on_our_word = _on_our_word(scope)
    return attempt_report(
        invoice,
        ReportedAttempt(
            origin=Origin.PROVIDER if on_our_word is None else Origin.OUTSIDE,
            transaction=charge,
            amount_minor=payment.amount_minor,
            currency=payment.currency,
            attempted_at=attempted_at,
            provider_id=payment.charge_id,
            provider_payment_id=payment.payment_id,
            token_pk=keys.token_pk if keys else None,
            card_pk=keys.card_pk if keys else None,
            network_reference=payment.network_reference,
            gateway_reference=payment.gateway_reference,
            decision={**(on_our_word or {}), **({"biller_number": biller_number} if biller_number else {})},
        ),
    )


def charge_of_try(
    invoice: Invoice, amount_minor: int, currency: str, attempted_at: datetime, stamp: Stamp, *, failed: bool
) -> Transaction:
    """The charge that a reported try stands in, under way. Raises EventWaits as `charge_for_report`."""
    charge = _paid_then(invoice, currency, attempted_at) if failed else None
    charge = charge or charge_for_report(invoice, amount_minor, currency, stamp)
    if charge.status in (TransactionStatus.INIT, TransactionStatus.RETRYING):
        if invoice.status == InvoiceStatus.INIT:
            move(invoice, "start", invoice=invoice, stamp=stamp)
        move(charge, "submit", invoice=invoice, stamp=stamp)
    return charge


def _paid_then(invoice: Invoice, currency: str, attempted_at: datetime) -> Transaction | None:
    """The charge that a failed try would stand in had it been told in time: the one by which its invoice was paid
    afterwards, whatever has become of that money."""
    if invoice.settled_at is None:
        return None
    paid = Transaction.objects.filter(
        invoice=invoice,
        kind=TransactionKind.CHARGE,
        status=TransactionStatus.DONE,
        currency=currency,
        attempts__status=AttemptStatus.SUCCEEDED,
        attempts__attempted_at__gt=attempted_at,
    )
    return paid.order_by("attempts__attempted_at", "id").first()


_MODE = Compiled(lambda: Connection.objects.filter(pk=Param("pk")).values_list("mode", flat=True))


def _on_our_word(scope: Scope) -> Mapping[str, Any] | None:
    """Where the merchant charges when told: the decision of the retry that this try carries out, empty for a try that
    nobody had planned. None where others charge."""
    invoice = scope.invoice
    if _MODE.first(pk=invoice.connection_id) != ConnectionMode.SCHEDULE:
        return None
    job = RetryJob.objects.filter(
        invoice=invoice, kind=TransactionKind.CHARGE, status__in=(JobStatus.SCHEDULED, JobStatus.QUEUED)
    ).first()
    return {} if job is None else {**job.decision, "why": job.why, "job": job.public_id}


_LAST_CHARGE = Compiled(
    lambda: Transaction.objects.filter(invoice=Param("invoice"), kind=TransactionKind.CHARGE).order_by("-id")[:1]
)


def charge_for_report(invoice: Invoice, amount_minor: int, currency: str, stamp: Stamp) -> Transaction:
    """The charge a reported attempt belongs to: the open one, a new one, or for a closed invoice its last.

    Money in another currency belongs to none of them: it gets a charge of its own, for which one that is only planned
    makes room. Raises EventWaits while one in another currency is in flight.
    """
    charge = open_charge(invoice)
    if charge is not None and charge.currency == currency:
        return charge
    last = _LAST_CHARGE.first(invoice=invoice.pk)
    if last is not None and last.currency == currency and (invoice.status not in INVOICE_OPEN or charge is not None):
        return last
    if last is not None and last.currency == currency and last.status == TransactionStatus.FAILED:
        return last
    if charge is not None and charge.status == TransactionStatus.PROCESSING:
        raise EventWaits("A charge in another currency is in flight; the event is booked when its result is known.")
    if charge is not None:
        other = stamp.because(f"paid in {currency}")
        move(charge, "cancel", invoice=invoice, stamp=other, finished_at=stamp.now)
    return charge_create(invoice, amount_minor=amount_minor, currency=currency, stamp=stamp)


def try_learn(attempt: Attempt, invoice: Invoice, payment: PaymentFacts, entry: Entry, stamp: Stamp) -> bool:
    """Fill in ids and method that an earlier report did not carry; True if the method is new.

    An invoice names only its default method: the payment's own word, which describes the card, overrules that guess.
    """
    fields = []
    if payment.charge_id and attempt.provider_id is None:
        attempt.provider_id = payment.charge_id
        fields.append("provider_id")
    if payment.payment_id and not attempt.provider_payment_id:
        attempt.provider_payment_id = payment.payment_id
        fields.append("provider_payment_id")
    for name in ("network_reference", "gateway_reference"):
        told = getattr(payment, name)
        if told and not getattr(attempt, name):
            setattr(attempt, name, told[:_REFERENCE])
            fields.append(name)
    described = payment.method is not None and payment.method.card is not None and attempt.origin != Origin.OURS
    learned = entry.method is not None and (
        attempt.token_id is None
        or (described and (attempt.token_id, attempt.card_id) != (entry.method.token_pk, entry.method.card_pk))
    )
    if learned and entry.method is not None:
        attempt.token_id, attempt.card_id = entry.method.token_pk, entry.method.card_pk
        fields += ["token", "card"]
    if learned:
        # Figures are grouped by the card: followers of the ledger have to hear of it.
        record_event(
            invoice=invoice,
            kind="attempt.method_learned",
            stamp=stamp,
            subject_type="attempt",
            subject_id=attempt.public_id,
            saves=(attempt, fields),
        )
    elif fields:
        row_save(attempt, *fields)
    return learned


# Kept with a payment that names no invoice: whether the one it was booked on is a guess still.
GUESSED = "guessed"


def try_guessed(attempt: Attempt) -> None:
    """Note of a success that only customer, amount and time say what it pays, unless the biller has spoken of it. What
    we have charged ourselves is no guess."""
    if attempt.origin != Origin.OURS and GUESSED not in attempt.decision:
        attempt.decision = {**attempt.decision, GUESSED: attempt.status != AttemptStatus.SUCCEEDED}
        row_save(attempt, "decision")


def try_apply(
    scope: Scope, attempt: Attempt, event: PaymentEvent, connection: Connection, stamp: Stamp, *, learned: bool
) -> None:
    payment = event.payment
    assert payment is not None
    # Clocks differ: nothing fails before it was tried, nor in the future, beyond which nothing could be planned.
    failed_at = min(max(payment.occurred_at or event.occurred_at, attempt.attempted_at), stamp.now)
    if event.kind is EventKind.PAYMENT_SUCCEEDED:
        if attempt.status != AttemptStatus.SUCCEEDED and not undone_since(attempt, event):
            captured = payment.captured_minor if payment.captured_minor is not None else payment.amount_minor
            outcomes.charge_has_succeeded(scope, attempt, captured_minor=captured, provider={}, stamp=stamp)
    elif event.kind is EventKind.PAYMENT_PENDING:
        if attempt.status in (AttemptStatus.SENDING, AttemptStatus.UNKNOWN):
            outcomes.charge_is_awaited(scope, attempt, expected_by=failed_at + _PENDING, provider={}, stamp=stamp)
    else:
        _fail(scope, attempt, event, connection, failed_at, stamp, learned=learned)


def _fail(
    scope: Scope,
    attempt: Attempt,
    event: PaymentEvent,
    connection: Connection,
    failed_at: datetime,
    stamp: Stamp,
    *,
    learned: bool,
) -> None:
    payment = event.payment
    assert payment is not None
    told = payment.decline or DeclineFacts()
    if payment.undone and attempt.status == AttemptStatus.SUCCEEDED:
        dispute_take_in(scope, attempt, return_of(attempt, payment), event, stamp)
    elif attempt.status in ATTEMPT_OPEN:
        if payment.undone:
            undone_note(attempt, event)
        report_decline(scope, attempt, told, connection, event, failed_at, stamp)
    elif attempt.status == AttemptStatus.ERRORED and not attempt.counts:
        attempt_count(attempt, scope.invoice, stamp)
    elif attempt.status == AttemptStatus.DECLINED:
        decline = _more_known(attempt, told, learned=learned)
        if decline is not None:
            outcomes.decline_was_named(
                scope, attempt, decline=decline, provider_name=event.provider, failed_at=failed_at, stamp=stamp
            )


def _more_known(attempt: Attempt, told: DeclineFacts, *, learned: bool) -> DeclineFacts | None:
    """The decline with what this event adds (a code, the network's code or advice, the card), or None if nothing.

    What was told first stands, except that the network's own advice goes before the provider's. A reason that nobody
    vouches for adds nothing to one that is known.
    """
    if attempt.raw_code and not told.trusted:
        return None
    advice = told.advice_code or attempt.advice_code or told.provider_advice
    known = DeclineFacts(
        raw_code=attempt.raw_code or told.raw_code,
        network_code=attempt.network_code or told.network_code,
        advice_code=advice,
        provider_advice=told.provider_advice or attempt.advice_code,
        message=attempt.message or told.message,
        sent_to_network=attempt.counts and told.sent_to_network,
        gateway=told.gateway,
        trusted=told.trusted,
    )
    before = (attempt.raw_code, attempt.network_code, attempt.advice_code)
    if before == (known.raw_code, known.network_code, known.advice_code) and not (learned and any(before)):
        return None
    return known


def report_decline(
    scope: Scope,
    attempt: Attempt,
    decline: DeclineFacts,
    connection: Connection,
    event: PaymentEvent,
    failed_at: datetime,
    stamp: Stamp,
) -> None:
    """A reported failure: opens the case if it is the first, then the same road as our own declines."""
    case = open_case(scope.invoice)
    nameless = event.payment is not None and not event.payment.names_invoice
    codeless = not (decline.raw_code or decline.network_code)
    if case is None and scope.invoice.status in INVOICE_OPEN:
        case = case_begin(scope, opened_at=opened_at(failed_at, stamp.now), stamp=stamp)
        if (nameless and scope.invoice.provider_invoice_id is None) or codeless:
            case.hold_until = failed_at + JOIN_WITHIN
            row_save(case, "hold_until")
    outcomes.charge_was_declined(
        scope,
        attempt,
        decline=decline,
        provider_name=event.provider,
        provider={},
        failed_at=failed_at,
        stamp=stamp,
    )
