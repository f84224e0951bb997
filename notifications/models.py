"""Staff alerts."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from accounts.models import Merchant
from invoices.models import Event, Invoice


class Alert(models.Model):
    """Something staff should hear about, written once per event from the outbox."""

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+")
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="+")
    event = models.OneToOneField(Event, on_delete=models.PROTECT, related_name="+")
    kind = models.CharField(max_length=60)
    text = models.CharField(max_length=500)
    raised_at = models.DateTimeField()
    acknowledged_by = models.CharField(max_length=100, blank=True, default="")
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        indexes = [
            models.Index(fields=["merchant", "-id"], name="alert_open", condition=Q(acknowledged_at__isnull=True))
        ]

    def __str__(self) -> str:
        return self.text
