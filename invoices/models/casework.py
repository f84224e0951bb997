"""What people write down about an invoice, beside the ledger."""

from functools import partial

import pgtrigger
from django.db import models
from django.db.models.functions import Now

from accounts.models import Merchant
from invoices.models.billing import Invoice
from recovery_site.common.ids import public_id


class StaffNote(models.Model):
    """A free note about one invoice: written once, never changed. Its text may name people, so it stands here and
    neither in the ledger's events nor in logs."""

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+")
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="staff_notes")
    public_id = models.CharField(max_length=40, unique=True, default=partial(public_id, "not"), editable=False)
    author = models.CharField(max_length=100)
    text = models.TextField(max_length=2_000)
    written_at = models.DateTimeField()
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        indexes = [models.Index(fields=["invoice", "-id"], name="staff_note_by_invoice")]
        triggers = [pgtrigger.Protect(name="staff_note_append_only", operation=pgtrigger.Update | pgtrigger.Delete)]

    def __str__(self) -> str:
        return self.public_id
