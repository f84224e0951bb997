"""What happened, who must hear of it, and what only a person can decide."""

from functools import partial

import pgtrigger
from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from accounts.models import Merchant
from invoices.models.billing import Invoice
from invoices.states import ReviewKind
from recovery_site.common.db import CurrentTransactionId, TransactionIdField
from recovery_site.common.ids import public_id


class Event(models.Model):
    """One link of an invoice's append-only chain. `hash` covers the fields and the hash before (invoices/chain.py)."""

    # Without db_index: one of the indexes below begins with the same column.
    merchant = models.ForeignKey(
        Merchant, on_delete=models.PROTECT, db_constraint=False, related_name="+", db_index=False
    )
    invoice = models.ForeignKey(
        Invoice, on_delete=models.PROTECT, db_constraint=False, related_name="events", db_index=False
    )
    seq = models.PositiveIntegerField()
    subject_type = models.CharField(max_length=20)
    subject_id = models.CharField(max_length=40)
    kind = models.CharField(max_length=60)
    from_state = models.CharField(max_length=16, blank=True, default="")
    to_state = models.CharField(max_length=16, blank=True, default="")
    actor = models.CharField(max_length=100)
    cause = models.CharField(max_length=200, blank=True, default="")
    data = models.JSONField(default=dict)
    occurred_at = models.DateTimeField()
    recorded_at = models.DateTimeField(db_default=Now(), editable=False)
    hash = models.CharField(max_length=64)
    xid = TransactionIdField(db_default=CurrentTransactionId(), editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["invoice", "seq"], name="event_seq_once")]
        indexes = [
            models.Index(fields=["xid", "id"], name="event_follow"),
        ]
        triggers = [pgtrigger.Protect(name="event_append_only", operation=pgtrigger.Update | pgtrigger.Delete)]

    def __str__(self) -> str:
        return f"{self.invoice_id}#{self.seq} {self.kind}"


class OutboxMessage(models.Model):
    """One event that one consumer must still handle (or has handled); due rows are swept with back-off."""

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, db_constraint=False, related_name="+")
    event = models.ForeignKey(
        Event, on_delete=models.PROTECT, db_constraint=False, related_name="outbox", db_index=False
    )
    consumer = models.CharField(max_length=40)
    attempts = models.PositiveSmallIntegerField(default=0)
    due_at = models.DateTimeField(db_default=Now())
    done_at = models.DateTimeField(null=True, blank=True)
    dead_at = models.DateTimeField(null=True, blank=True)
    last_error = models.CharField(max_length=500, blank=True, default="")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["event", "consumer"], name="outbox_once")]
        indexes = [
            models.Index(
                fields=["due_at", "id"],
                name="outbox_due",
                condition=Q(done_at__isnull=True, dead_at__isnull=True),
            ),
            models.Index(fields=["merchant", "-id"], name="outbox_dead", condition=Q(dead_at__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"{self.consumer} of event {self.event_id}"


class ReviewItem(models.Model):
    """Something only a person can decide: the facts, the choices, who took it and how it ended."""

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+")
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, null=True, blank=True, related_name="review_items")
    public_id = models.CharField(max_length=40, unique=True, default=partial(public_id, "rev"), editable=False)
    subject_type = models.CharField(max_length=20)
    subject_id = models.CharField(max_length=200)
    kind = models.CharField(max_length=30, choices=ReviewKind.choices)
    facts = models.JSONField(default=dict)
    choices = ArrayField(models.CharField(max_length=40), default=list)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    opened_at = models.DateTimeField()
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolution = models.CharField(max_length=40, blank=True, default="")
    resolved_by = models.CharField(max_length=100, blank=True, default="")
    note = models.TextField(blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["subject_type", "subject_id", "kind"],
                condition=Q(resolved_at__isnull=True),
                name="review_one_open_per_subject_and_kind",
            )
        ]
        indexes = [
            models.Index(fields=["merchant", "opened_at"], name="review_open", condition=Q(resolved_at__isnull=True)),
            models.Index(
                fields=["merchant", "-resolved_at", "-id"],
                name="review_answered",
                condition=Q(resolved_at__isnull=False),
            ),
            models.Index(fields=["merchant", "kind", "-id"], name="review_by_kind"),
            models.Index(fields=["subject_id"], name="review_by_subject"),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.subject_id}"
