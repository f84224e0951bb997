"""The staff queue: every question that no machine may answer becomes exactly one open review item."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db import transaction

from invoices.models import Invoice, ReviewItem
from invoices.services.ledger import Stamp, alert, record_event
from invoices.states import ReviewKind
from recovery_site.common.compiled import AnyOf, Compiled, Param
from recovery_site.common.db import for_no_key_update
from recovery_site.common.errors import Conflict, InvalidInput
from recovery_site.common.raw import raw_answer


def review_open(
    *,
    invoice: Invoice,
    kind: ReviewKind,
    subject_type: str,
    subject_id: str,
    facts: Mapping[str, Any],
    choices: Sequence[str],
    stamp: Stamp,
) -> ReviewItem:
    """Put a question into the staff queue, once per open (subject, kind); needs the locked invoice.

    Writes `review.opened` and an alert with the first opening; a repetition returns the open item unchanged.
    """
    item, created = ReviewItem.objects.get_or_create(
        subject_type=subject_type,
        subject_id=subject_id,
        kind=kind,
        resolved_at=None,
        defaults={
            "merchant_id": invoice.merchant_id,
            "invoice": invoice,
            "facts": raw_answer(facts),
            "choices": list(choices),
            "opened_at": stamp.now,
        },
    )
    if created:
        record_event(
            invoice=invoice,
            kind="review.opened",
            stamp=stamp,
            subject_type="review",
            subject_id=item.public_id,
            data={"kind": kind.value, "subject": subject_id},
        )
        alert(invoice, kind.value, f"{kind.label}: a person has to decide.", stamp)
    return item


def review_resolve(*, item_pk: int, invoice: Invoice, resolution: str, stamp: Stamp, note: str = "") -> ReviewItem:
    """Close a question under its invoice's lock. Raises Conflict if it is closed, InvalidInput for a foreign choice."""
    item = for_no_key_update(ReviewItem.objects.filter(pk=item_pk, invoice=invoice)).get()
    if item.resolved_at is not None:
        raise Conflict(f"This question was already answered by {item.resolved_by} ({item.resolution}).")
    if resolution not in item.choices:
        raise InvalidInput(f"{resolution!r} is not one of the answers: {', '.join(item.choices)}.")
    item.resolved_at, item.resolution, item.resolved_by, item.note = stamp.now, resolution, stamp.actor, note
    item.save(update_fields=["resolved_at", "resolution", "resolved_by", "note"])
    record_event(
        invoice=invoice,
        kind="review.resolved",
        stamp=stamp,
        subject_type="review",
        subject_id=item.public_id,
        data={"kind": item.kind, "resolution": resolution},
    )
    return item


def review_remind(*, item_pk: int, invoice: Invoice, stamp: Stamp) -> bool:
    """Tell staff, once, that a question has been open for too long; False if it is answered meanwhile.

    Needs the invoice's lock; writes `alert.staff_waits` with the question as its subject.
    """
    item = for_no_key_update(ReviewItem.objects.filter(pk=item_pk, invoice=invoice)).get()
    if item.resolved_at is not None:
        return False
    hours = int((stamp.now - item.opened_at).total_seconds() // 3600)
    record_event(
        invoice=invoice,
        kind="alert.staff_waits",
        stamp=stamp,
        subject_type="review",
        subject_id=item.public_id,
        data={"text": f"{item.get_kind_display()}: nobody has decided for {hours} hours.", "kind": item.kind},
    )
    return True


@transaction.atomic
def review_take(*, item_pk: int, user_pk: int | None, now: datetime) -> None:
    """Assign an open question to a person (or to nobody)."""
    changed = ReviewItem.objects.filter(pk=item_pk, resolved_at__isnull=True).update(owner_id=user_pk)
    if not changed:
        raise Conflict("This question is already answered.")


_OPEN = Compiled(
    lambda: ReviewItem.objects.filter(
        AnyOf("kind", Param("kinds")), invoice=Param("invoice"), subject_id=Param("subject"), resolved_at__isnull=True
    )
)


def reviews_close(*, invoice: Invoice, kinds: Sequence[ReviewKind], subject_id: str, stamp: Stamp) -> None:
    """Close open questions that events have answered meanwhile (an unknown attempt that became known)."""
    for item in _OPEN.all(invoice=invoice.pk, kinds=[kind.value for kind in kinds], subject=subject_id):
        item.resolved_at, item.resolution, item.resolved_by = stamp.now, "answered_by_events", stamp.actor
        item.save(update_fields=["resolved_at", "resolution", "resolved_by"])
        record_event(
            invoice=invoice,
            kind="review.resolved",
            stamp=stamp,
            subject_type="review",
            subject_id=item.public_id,
            data={"kind": item.kind, "resolution": "answered_by_events"},
        )
