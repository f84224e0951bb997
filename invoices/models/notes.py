"""What a billing system has to be told of money that moved outside of it."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from accounts.models import Merchant
from invoices.models.billing import Invoice, Transaction
from invoices.models.parties import Connection
from invoices.states import NoteStatus


class BillerNote(models.Model):
    """A paid charge or refund of a biller's invoice that was made elsewhere, and whether the biller knows of it.

    One per transaction. `record_id` is the biller's id of what it has written; `why` says what stands in the way.
    """

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+")
    connection = models.ForeignKey(Connection, on_delete=models.PROTECT, related_name="+")
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="biller_notes")
    transaction = models.OneToOneField(Transaction, on_delete=models.PROTECT, related_name="biller_note")
    status = models.CharField(max_length=8, choices=NoteStatus.choices, default=NoteStatus.WAITING)
    tries = models.PositiveSmallIntegerField(default=0)
    why = models.CharField(max_length=500, blank=True, default="")
    record_id = models.CharField(max_length=200, blank=True, default="")
    tried_at = models.DateTimeField(null=True, blank=True)
    written_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(status__in=NoteStatus.values), name="biller_note_status_known"),
            models.CheckConstraint(
                condition=~Q(status=NoteStatus.WRITTEN) | Q(written_at__isnull=False),
                name="biller_note_written_has_time",
            ),
        ]
        indexes = [
            models.Index(fields=["merchant", "-id"], name="biller_note_by_merchant"),
            models.Index(
                fields=["merchant", "id"],
                name="biller_note_open",
                condition=~Q(status=NoteStatus.WRITTEN),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_status_display()}: {self.transaction}"
