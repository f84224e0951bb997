"""Inbound endpoints and the inbox."""

import uuid

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django_fsm import FSMField, FSMModelMixin, transition

from accounts.models import Merchant
from invoices.models import Connection
from providers.base import Proof
from recovery_site.common.states import move_arguments, state_triggers
from webhooks.states import INBOX_MOVES, InboxStatus

_inbox = move_arguments(INBOX_MOVES)
PROOFS = {
    Proof.SIGNED.value: "Signed",
    Proof.PARTLY.value: "Signed in part",
    Proof.SENDER.value: "Password, no signature",
}


class WebhookEndpoint(models.Model):
    """Where one provider account sends to. `provider` names the dialect, `connection` whose ledger it feeds."""

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+")
    connection = models.ForeignKey(Connection, on_delete=models.PROTECT, related_name="endpoints")
    uuid = models.UUIDField(unique=True, default=uuid.uuid4, editable=False)
    provider = models.CharField(max_length=40)
    # {"current": ..., "previous": ...}, encrypted.
    secrets_encrypted = models.TextField(editable=False)
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    def __str__(self) -> str:
        return f"{self.provider} {self.uuid}"


class InboxEvent(FSMModelMixin, models.Model):
    """One item of an inbound webhook, as received after scrubbing; `body_hash` is of the original bytes."""

    # No indexes of their own: those below begin with the same columns, and every one costs at each webhook.
    merchant = models.ForeignKey(
        Merchant, on_delete=models.PROTECT, db_constraint=False, related_name="+", db_index=False
    )
    endpoint = models.ForeignKey(
        WebhookEndpoint, on_delete=models.PROTECT, db_constraint=False, related_name="events", db_index=False
    )
    provider_event_id = models.CharField(max_length=300)
    event_type = models.CharField(max_length=120)
    order_key = models.CharField(max_length=300, blank=True, default="")
    body = models.TextField()
    body_hash = models.CharField(max_length=64)
    proof = models.CharField(
        max_length=10, choices=PROOFS, db_default=Proof.SIGNED.value, help_text="What vouches for the body."
    )
    status = FSMField(max_length=10, choices=InboxStatus.choices, default=InboxStatus.RECEIVED, protected=True)
    reason = models.CharField(max_length=500, blank=True, default="", help_text="Why it was ignored, waits or failed.")
    attempts = models.PositiveSmallIntegerField(default=0)
    due_at = models.DateTimeField(db_default=Now())
    received_at = models.DateTimeField()
    processed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["endpoint", "provider_event_id"], name="inbox_event_once")]
        indexes = [
            models.Index(fields=["due_at", "id"], name="inbox_due", condition=Q(status=InboxStatus.RECEIVED)),
            # A drain walks in order of arrival and asks for earlier items of the same key; only what waits is in here.
            models.Index(fields=["id"], name="inbox_arrival", condition=Q(status=InboxStatus.RECEIVED)),
            models.Index(
                fields=["endpoint", "order_key", "id"], name="inbox_order", condition=Q(status=InboxStatus.RECEIVED)
            ),
            models.Index(fields=["merchant", "-id"], name="inbox_by_merchant"),
            models.Index(fields=["merchant", "id"], name="inbox_failed", condition=Q(status=InboxStatus.FAILED)),
            # What staff look for: both are written once the item has been worked, not at the door.
            models.Index(fields=["merchant", "-id"], name="inbox_ignored", condition=Q(status=InboxStatus.IGNORED)),
            models.Index(
                fields=["endpoint", "order_key"], name="inbox_worked", condition=~Q(status=InboxStatus.RECEIVED)
            ),
        ]
        triggers = state_triggers("inbox", INBOX_MOVES, InboxStatus.RECEIVED)

    def __str__(self) -> str:
        return f"{self.event_type} {self.provider_event_id}"

    @transition(field=status, **_inbox["process"])
    def process(self) -> None: ...

    @transition(field=status, **_inbox["ignore"])
    def ignore(self) -> None: ...

    @transition(field=status, **_inbox["fail"])
    def fail(self) -> None: ...

    @transition(field=status, **_inbox["replay"])
    def replay(self) -> None: ...
