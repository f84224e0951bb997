"""What each recovery is put down to, by the rule in force when it was worked out."""

from django.db import models
from django.db.models.functions import Now

from accounts.models import Merchant
from notifications.attribution import Source
from notifications.models.messages import Message
from retries.models import Case


class CaseAttribution(models.Model):
    """The source of one recovered case: derived from the ledger, so that it can be worked out again at any time."""

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+")
    case = models.OneToOneField(Case, on_delete=models.PROTECT, related_name="attribution")
    source = models.CharField(max_length=12, choices=[(one.value, one.value) for one in Source])
    message = models.ForeignKey(Message, on_delete=models.SET_NULL, null=True, blank=True, related_name="recoveries")
    why = models.CharField(max_length=200)
    rule = models.CharField(max_length=20)
    amount_minor = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    recovered_at = models.DateTimeField()
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        indexes = [models.Index(fields=["merchant", "recovered_at"], name="attribution_by_recovered")]

    def __str__(self) -> str:
        return f"{self.case_id}: {self.source}"
