"""Notes of staff and who looks after an invoice: both audited in the invoice's chain, neither moves money."""

import structlog
from django.db import transaction
from django.db.models import QuerySet

from accounts.models import Membership, User
from invoices.models import Invoice, StaffNote
from invoices.services.ledger import Stamp, invoice_lock, record_event
from invoices.services.parties import customer_lock
from recovery_site.common.errors import InvalidInput, NotFound
from recovery_site.common.scrubbing import scrub_text

log = structlog.get_logger()
NOTE_LENGTH = 2_000


@transaction.atomic
def note_add(*, invoice_pk: int, text: str, stamp: Stamp) -> StaffNote:
    """Keep a note of `stamp.actor`, without card numbers and secrets. Locks customer and invoice, writes `staff.note`
    with the note's id, not its text.

    Raises NotFound, InvalidInput.
    """
    text = scrub_text(text.strip().replace("\x00", ""))
    if not 0 < len(text) <= NOTE_LENGTH:
        raise InvalidInput(f"Write a note of 1 to {NOTE_LENGTH:,} characters.")
    invoice = _locked(invoice_pk)
    note = StaffNote.objects.create(
        merchant_id=invoice.merchant_id, invoice=invoice, author=stamp.actor[:100], text=text, written_at=stamp.now
    )
    record_event(invoice=invoice, kind="staff.note", stamp=stamp, data={"note": note.public_id})
    log.info("staff_note", invoice=invoice.public_id, note=note.public_id, actor=stamp.actor)
    return note


@transaction.atomic
def invoice_assign(*, invoice_pk: int, user_pk: int | None, stamp: Stamp) -> Invoice:
    """Let a member of the merchant look after an invoice, or nobody. Locks customer and invoice; writes `staff.assign`
    if that is a change. Raises NotFound, InvalidInput for somebody who is no member."""
    invoice = _locked(invoice_pk)
    if user_pk is not None and not assignable(invoice.merchant_id).filter(pk=user_pk).exists():
        raise InvalidInput("Choose a member of this merchant.")
    if invoice.assignee_id == user_pk:
        return invoice
    before, invoice.assignee_id = invoice.assignee_id, user_pk
    invoice.save(update_fields=["assignee"])
    data = {"from": _actor(before), "to": _actor(user_pk)}
    record_event(invoice=invoice, kind="staff.assign", stamp=stamp, data=data)
    log.info("invoice_assigned", invoice=invoice.public_id, actor=stamp.actor, **data)
    return invoice


def assignable(merchant_pk: int) -> QuerySet[User]:
    """Who may look after a merchant's invoices: its active members, by name."""
    members = Membership.objects.filter(merchant=merchant_pk).values("user")
    return User.objects.filter(pk__in=members, is_active=True).order_by("first_name", "last_name", "username")


def _actor(user_pk: int | None) -> str:
    return "" if user_pk is None else f"user:{user_pk}"


def _locked(invoice_pk: int) -> Invoice:
    """The invoice under its locks, in the order of DESIGN section 6."""
    customer = Invoice.objects.filter(pk=invoice_pk).values_list("customer_id", flat=True).first()
    if customer is None:
        raise NotFound("This invoice does not exist.")
    customer_lock(customer)
    return invoice_lock(invoice_pk)
