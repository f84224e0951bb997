"""Where a merchant wants to hear of events, and every message that was sent there."""

from functools import partial

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django_fsm import FSMField, FSMModelMixin, transition

from accounts.models import Merchant
from invoices.models import Event
from recovery_site.common.ids import public_id
from recovery_site.common.states import move_arguments, state_triggers
from webhooks.states import DELIVERY_MOVES, DeliveryStatus

_delivery = move_arguments(DELIVERY_MOVES)


class OutboundEndpoint(models.Model):
    """One address of a merchant's own systems. `failing_since`, `failures` and `rests_until` live on the database clock
    and tell how it has answered since its last success."""

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+")
    public_id = models.CharField(max_length=40, unique=True, default=partial(public_id, "hook"), editable=False)
    url = models.URLField(max_length=500)
    description = models.CharField(max_length=200, blank=True, default="")
    event_types = ArrayField(
        models.CharField(max_length=40), default=list, blank=True, help_text="Empty: every type, also future ones."
    )
    # {"current": ..., "previous": ...}, encrypted; the previous one signs too until `previous_until`.
    secrets_encrypted = models.TextField(editable=False)
    previous_until = models.DateTimeField(null=True, blank=True, editable=False)
    enabled = models.BooleanField(default=True)
    disabled_at = models.DateTimeField(null=True, blank=True, editable=False)
    disabled_reason = models.CharField(max_length=300, blank=True, default="", editable=False)
    failing_since = models.DateTimeField(null=True, blank=True, editable=False)
    failures = models.PositiveIntegerField(default=0, editable=False, help_text="Failed tries since the last success.")
    rests_until = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    def __str__(self) -> str:
        return self.description or self.url


class Delivery(FSMModelMixin, models.Model):
    """One event for one endpoint. `body` is exactly what is signed and sent, at every try the same; it holds ids and
    amounts, no personal data."""

    # No index of its own: `delivery_by_merchant` and `delivery_once` begin with the same columns.
    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+", db_index=False)
    endpoint = models.ForeignKey(OutboundEndpoint, on_delete=models.PROTECT, related_name="deliveries", db_index=False)
    event = models.ForeignKey(Event, on_delete=models.PROTECT, related_name="+", db_index=False)
    public_id = models.CharField(max_length=40, unique=True, default=partial(public_id, "dlv"), editable=False)
    message_id = models.CharField(max_length=60, help_text="The webhook-id header: one per event.")
    event_type = models.CharField(max_length=40)
    body = models.TextField()
    status = FSMField(max_length=10, choices=DeliveryStatus.choices, default=DeliveryStatus.PENDING, protected=True)
    tries = models.PositiveSmallIntegerField(default=0, help_text="Since it was made or last replayed.")
    due_at = models.DateTimeField(db_default=Now())
    last_status = models.PositiveSmallIntegerField(null=True, blank=True, help_text="HTTP status of the last answer.")
    last_error = models.CharField(max_length=300, blank=True, default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name_plural = "deliveries"
        constraints = [models.UniqueConstraint(fields=["endpoint", "event"], name="delivery_once")]
        indexes = [
            models.Index(
                fields=["endpoint", "due_at", "id"], name="delivery_due", condition=Q(status=DeliveryStatus.PENDING)
            ),
            models.Index(fields=["merchant", "-id"], name="delivery_by_merchant"),
            models.Index(fields=["merchant", "created_at", "id"], name="delivery_by_created"),
            models.Index(fields=["merchant", "-id"], name="delivery_dead", condition=Q(status=DeliveryStatus.DEAD)),
            models.Index(fields=["message_id"], name="delivery_by_message"),
        ]
        triggers = state_triggers("delivery", DELIVERY_MOVES, DeliveryStatus.PENDING)

    def __str__(self) -> str:
        return f"{self.event_type} {self.message_id}"

    @transition(field=status, **_delivery["deliver"])
    def deliver(self) -> None: ...

    @transition(field=status, **_delivery["give_up"])
    def give_up(self) -> None: ...

    @transition(field=status, **_delivery["replay"])
    def replay(self) -> None: ...


class DeliveryTry(models.Model):
    """One request of a delivery and how it ended; the answer's beginning is kept scrubbed."""

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+", db_index=False)
    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, related_name="log")
    at = models.DateTimeField(db_default=Now())
    duration_ms = models.PositiveIntegerField()
    status_code = models.PositiveSmallIntegerField(null=True, blank=True, help_text="None: no HTTP answer came.")
    error = models.CharField(max_length=300, blank=True, default="")
    answer = models.CharField(max_length=500, blank=True, default="")

    class Meta:
        verbose_name = "delivery try"
        verbose_name_plural = "delivery tries"

    def __str__(self) -> str:
        return f"{self.status_code or self.error} after {self.duration_ms} ms"
