"""Asking for a refund: checked and capped under the invoice's lock, beyond a limit only with a second person."""

from datetime import datetime

from django.db import transaction
from django.db.models import Sum

from accounts.models import Merchant
from accounts.selectors import person_behind
from invoices.models import Attempt, Dispute, Invoice, ReviewItem, Transaction
from invoices.services.ledger import Stamp, move
from invoices.services.refunds import refund_create, refund_state
from invoices.services.reviews import review_open, review_resolve
from invoices.states import (
    TRANSACTION_OPEN,
    AttemptStatus,
    DisputeStatus,
    ReviewKind,
    TransactionKind,
    TransactionStatus,
)
from recovery_site.common.errors import Conflict, InvalidInput, NotFound
from recovery_site.common.money import format_money
from retries.locking import Scope, scope_lock
from retries.models import RetryJob
from retries.services.disputes import disputes_apply
from retries.states import JobStatus


@transaction.atomic
def refund_request(
    *, invoice_pk: int, amount_minor: int | None, reason: str, stamp: Stamp, charge_id: str = ""
) -> Transaction:
    """Give back `amount_minor` (None: all that is left) of a paid charge of the invoice; sent by the next sweep.

    `charge_id` (a transaction's public id) chooses the charge, needed only where several were paid. Once all refunds
    of the invoice go beyond the merchant's limit, it waits in the staff queue for another person. Raises NotFound,
    InvalidInput, Conflict.
    """
    scope = _scope(invoice_pk)
    charge = _charge(scope.invoice, charge_id)
    room = refundable_minor(charge)
    wanted = room if amount_minor is None else amount_minor
    if not 0 < wanted <= room:
        left = format_money(room, charge.currency)
        raise InvalidInput(f"At most {left} of this payment can still be refunded; ask for an amount up to that.")
    refund = refund_create(
        scope.invoice, charge=charge, amount_minor=wanted, currency=charge.currency, reason=reason, stamp=stamp
    )
    if _needs_approval(scope.invoice, charge.currency):
        _ask(scope.invoice, refund, stamp)
    else:
        _send(scope, refund, stamp)
    refund_state(scope.invoice, stamp)
    return refund


def refundable_minor(charge: Transaction) -> int:
    """What is left of a DONE charge: captured less every refund that did not fail (orphans count until resolved)."""
    return max(0, (charge.captured_minor or 0) - given_minor(charge))


def given_minor(charge: Transaction) -> int:
    """What was given back of a charge, or may yet be: every refund that neither failed nor was reversed."""
    alive = Transaction.objects.filter(
        refund_of=charge, status__in=(*TRANSACTION_OPEN, TransactionStatus.DONE), reversed_at=None
    )
    return alive.aggregate(total=Sum("amount_minor"))["total"] or 0


def taken_back(charge: Transaction) -> bool:
    """True while a dispute of this payment is open, and after it was lost or returned."""
    return Dispute.objects.filter(
        attempt__transaction=charge, status__in=(DisputeStatus.OPEN, DisputeStatus.LOST)
    ).exists()


def _scope(invoice_pk: int) -> Scope:
    customer_pk = Invoice.objects.values_list("customer_id", flat=True).filter(pk=invoice_pk).first()
    if customer_pk is None:
        raise NotFound("This invoice does not exist.")
    return scope_lock(customer_pk=customer_pk, invoice_pk=invoice_pk)


def _charge(invoice: Invoice, charge_id: str) -> Transaction:
    """The paid charge to give back: the named one, or the only one with something left."""
    paid = Transaction.objects.select_for_update(no_key=True).filter(
        invoice=invoice, kind=TransactionKind.CHARGE, status=TransactionStatus.DONE
    )
    if charge_id:
        paid = paid.filter(public_id=charge_id)
    charges = [charge for charge in paid.order_by("id") if refundable_minor(charge) > 0]
    if not charges:
        raise Conflict("Nothing of this invoice's payments is left that could be refunded.")
    if len(charges) > 1:
        names = ", ".join(charge.public_id for charge in charges)
        raise InvalidInput(f"Several payments of this invoice could be refunded; name one of {names}.")
    charge = charges[0]
    if taken_back(charge):
        raise Conflict(
            "This payment is disputed or was returned: the bank moves that money, so a refund would give it back twice."
        )
    if charge_attempt(charge) is None:
        raise Conflict("This payment was made outside of the provider's API; refund it where it was taken.")
    return charge


def charge_attempt(charge: Transaction) -> Attempt | None:
    """The successful attempt whose id the provider refunds."""
    return (
        Attempt.objects.filter(transaction=charge, status=AttemptStatus.SUCCEEDED, provider_id__isnull=False)
        .order_by("id")
        .first()
    )


def _needs_approval(invoice: Invoice, currency: str) -> bool:
    """Whether all that the invoice gives back, with the refund just asked for, goes beyond what one person may give.

    Several small refunds are one large one. No window of time: an invoice has few refunds, and each person who adds to
    what is beyond the limit needs a second one.
    """
    limit = Merchant.objects.values_list("refund_approval_above_minor", flat=True).get(pk=invoice.merchant_id)
    return limit is not None and _given_in_all(invoice, currency) > limit


def _given_in_all(invoice: Invoice, currency: str) -> int:
    """Every refund of the invoice in this currency that is open or done, whoever made it."""
    alive = Transaction.objects.filter(
        invoice=invoice,
        kind=TransactionKind.REFUND,
        currency=currency,
        status__in=(*TRANSACTION_OPEN, TransactionStatus.DONE),
        reversed_at=None,
    )
    return alive.aggregate(total=Sum("amount_minor"))["total"] or 0


def _ask(invoice: Invoice, refund: Transaction, stamp: Stamp) -> None:
    review_open(
        invoice=invoice,
        kind=ReviewKind.REFUND_APPROVAL,
        subject_type="transaction",
        subject_id=refund.public_id,
        facts={
            "amount_minor": refund.amount_minor,
            "all_refunds_minor": _given_in_all(invoice, refund.currency),
            "currency": refund.currency,
            "reason": refund.reason,
            "requested_by": stamp.actor,
        },
        choices=["approve", "refuse"],
        stamp=stamp,
    )


def _send(scope: Scope, refund: Transaction, stamp: Stamp) -> None:
    refund_book(refund, due_at=stamp.now, customer_pk=scope.customer.pk, actor=stamp.actor, why="Refund was asked for.")


def refund_book(refund: Transaction, *, due_at: datetime, customer_pk: int, actor: str, why: str) -> RetryJob:
    """Book the sending of a refund. Refunds need no slot: they never compete for a card's budget."""
    return RetryJob.objects.create(
        merchant_id=refund.merchant_id,
        connection_id=refund.invoice.connection_id,
        customer_id=customer_pk,
        invoice_id=refund.invoice_id,
        transaction=refund,
        kind=TransactionKind.REFUND,
        status=JobStatus.SCHEDULED,
        trigger="staff",
        due_at=due_at,
        band=0,
        why=why[:500],
        requested_by=actor,
    )


@transaction.atomic
def refund_approve(*, refund_pk: int, stamp: Stamp, note: str = "") -> None:
    """A second person releases a refund. Raises Conflict for the person who asked, also by a key or an application of
    theirs, or if nothing waits."""
    scope, refund, item = _pending(refund_pk)
    asked = str(item.facts.get("requested_by", ""))
    first, second = person_behind(asked), person_behind(stamp.actor)
    if asked == stamp.actor or (first is not None and first == second):
        raise Conflict("A refund of this size needs a second person: somebody else has to approve it.")
    review_resolve(item_pk=item.pk, invoice=scope.invoice, resolution="approve", stamp=stamp, note=note)
    _send(scope, refund, stamp)


@transaction.atomic
def refund_refuse(*, refund_pk: int, stamp: Stamp, note: str = "") -> None:
    """The refund is not sent: FAILED, the invoice goes back to what it was."""
    scope, refund, item = _pending(refund_pk)
    review_resolve(item_pk=item.pk, invoice=scope.invoice, resolution="refuse", stamp=stamp, note=note)
    move(
        refund,
        "fail",
        invoice=scope.invoice,
        stamp=stamp,
        finished_at=stamp.now,
        failure="refused by a second person",
    )
    refund_state(scope.invoice, stamp)
    disputes_apply(scope, stamp)


def _pending(refund_pk: int) -> tuple[Scope, Transaction, ReviewItem]:
    refund = Transaction.objects.filter(pk=refund_pk, kind=TransactionKind.REFUND).first()
    if refund is None:
        raise NotFound("This refund does not exist.")
    scope = _scope(refund.invoice_id)
    refund = Transaction.objects.select_for_update(no_key=True).get(pk=refund_pk)
    item = ReviewItem.objects.filter(
        subject_id=refund.public_id, kind=ReviewKind.REFUND_APPROVAL, resolved_at=None
    ).first()
    if item is None:
        raise Conflict("This refund waits for nobody's approval.")
    return scope, refund, item
