"""Staff alerts, the places they go to, and each one's way there."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django_fsm import FSMField, FSMModelMixin, transition

from accounts.models import Merchant
from invoices.models import Event, Invoice
from notifications.states import DELIVERY_MOVES, AlertChannel, DeliveryStatus
from recovery_site.common.states import move_arguments, state_triggers

_delivery = move_arguments(DELIVERY_MOVES)


class Alert(models.Model):
    """Something staff should hear about: from the ledger (with its invoice and newest event) or about the merchant.

    Until somebody acknowledges it, the same thing again (`kind`, `dedupe_key`) only counts up.
    """

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+")
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    event = models.OneToOneField(Event, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    kind = models.CharField(max_length=60)
    dedupe_key = models.CharField(max_length=200, blank=True, default="")
    text = models.CharField(max_length=500)
    # Where to look, as a path of this service; empty: the invoice's page.
    link = models.CharField(max_length=300, blank=True, default="")
    repeats = models.PositiveIntegerField(default=0)
    raised_at = models.DateTimeField()
    repeated_at = models.DateTimeField(null=True, blank=True)
    # When what it told of was over; only alerts about a state that ends have one.
    over_at = models.DateTimeField(null=True, blank=True)
    acknowledged_by = models.CharField(max_length=100, blank=True, default="")
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["merchant", "kind", "dedupe_key"],
                condition=Q(acknowledged_at__isnull=True) & ~Q(dedupe_key=""),
                name="alert_once_while_open",
            )
        ]
        indexes = [
            models.Index(fields=["merchant", "-id"], name="alert_open", condition=Q(acknowledged_at__isnull=True))
        ]

    def __str__(self) -> str:
        return self.text


class AlertRoute(models.Model):
    """A place that hears of a merchant's alerts. A webhook's address is a secret and stands encrypted."""

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+")
    name = models.CharField(max_length=100)
    channel = models.CharField(max_length=10, choices=AlertChannel.choices)
    address = models.CharField(max_length=254, blank=True, default="", help_text="Mail address.")
    secret_encrypted = models.TextField(blank=True, default="", editable=False)
    kinds = ArrayField(
        models.CharField(max_length=60), default=list, blank=True, help_text="Kinds of alerts; none means all of them."
    )
    enabled = models.BooleanField(default=True)
    created_by = models.CharField(max_length=100, default="system")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["merchant", "name"], name="alert_route_name_once")]

    def __str__(self) -> str:
        return self.name

    def hears(self, kind: str) -> bool:
        return self.enabled and (not self.kinds or kind in self.kinds)


class AlertDelivery(FSMModelMixin, models.Model):
    """One alert, or its end (`closing`), on its way along one route.

    `lease_until` is on the database clock, the rest on the service's.
    """

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+")
    alert = models.ForeignKey(Alert, on_delete=models.CASCADE, related_name="deliveries")
    route = models.ForeignKey(AlertRoute, on_delete=models.PROTECT, related_name="deliveries")
    status = FSMField(max_length=8, choices=DeliveryStatus.choices, default=DeliveryStatus.PENDING, protected=True)
    closing = models.BooleanField(default=False)
    tries = models.PositiveSmallIntegerField(default=0)
    due_at = models.DateTimeField()
    lease_until = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    last_error = models.CharField(max_length=500, blank=True, default="")

    class Meta:
        verbose_name_plural = "alert deliveries"
        constraints = [models.UniqueConstraint(fields=["alert", "route", "closing"], name="alert_delivery_once")]
        indexes = [
            models.Index(fields=["due_at"], name="alert_delivery_due", condition=Q(status=DeliveryStatus.PENDING))
        ]
        triggers = state_triggers("alert_delivery", DELIVERY_MOVES, DeliveryStatus.PENDING)

    def __str__(self) -> str:
        return f"{self.alert_id} to {self.route_id}"

    @transition(field=status, **_delivery["deliver"])
    def deliver(self) -> None: ...

    @transition(field=status, **_delivery["give_up"])
    def give_up(self) -> None: ...
