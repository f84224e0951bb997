"""Messages to customers: the rows, the links in them, the texts they are made of, and who must not get any."""

import uuid
from functools import partial

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django_fsm import FSMField, FSMModelMixin, transition

from accounts.models import Merchant
from invoices.models import Attempt, Customer, Invoice
from notifications.states import (
    MESSAGE_MOVES,
    LinkPurpose,
    MessageStatus,
    Sender,
    SuppressionReason,
)
from recovery_site.common.ids import public_id
from recovery_site.common.states import move_arguments, state_triggers
from retries.models import Case
from retries.policy import Audience

_message = move_arguments(MESSAGE_MOVES)


class MessageSettings(models.Model):
    """How one merchant's messages look and how many there may be. A merchant without a row has the defaults."""

    merchant = models.OneToOneField(Merchant, on_delete=models.PROTECT, related_name="message_settings")
    sender = models.CharField(max_length=10, choices=Sender.choices, default=Sender.OURS)
    sender_name = models.CharField(max_length=100, blank=True, default="", help_text="Empty: the merchant's name.")
    reply_to = models.EmailField(blank=True, default="", help_text="Where answers go.")
    contact = models.CharField(
        max_length=200, blank=True, default="", help_text="Shown to customers who need help, e.g. a mail address."
    )
    default_locale = models.CharField(
        max_length=16, default="en", help_text="Language for customers whose own is not known or not shipped."
    )
    method_url = models.URLField(
        blank=True,
        default="",
        help_text="Your own page to change the payment method, for providers that have none that we can open.",
    )
    cap_count = models.PositiveSmallIntegerField(default=3, help_text="At most this many messages to one address …")
    cap_days = models.PositiveSmallIntegerField(default=7, help_text="… within so many days,")
    gap_hours = models.PositiveSmallIntegerField(default=20, help_text="and never two within so many hours.")
    link_days = models.PositiveSmallIntegerField(default=30, help_text="How long the link in a message works.")
    card_notes = models.BooleanField(default=True, help_text="Write before a card expires.")
    expiry_days = models.PositiveSmallIntegerField(default=21, help_text="Days before the card's last day.")
    renewal_days = models.PositiveSmallIntegerField(
        default=5, help_text="Days before a renewal that an expiring card will not survive."
    )
    notes_planned_at = models.DateTimeField(null=True, blank=True, editable=False)
    # Where the mail system reports bounces and complaints to; the secret signs them (Standard Webhooks).
    events_uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    events_secret_encrypted = models.TextField(blank=True, default="", editable=False)
    changed_by = models.CharField(max_length=100, default="system", editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        verbose_name_plural = "message settings"
        constraints = [
            models.CheckConstraint(condition=Q(cap_count__gte=1, cap_days__gte=1), name="message_cap_at_least_one"),
            models.CheckConstraint(condition=Q(link_days__gte=1), name="message_link_lives_a_day"),
        ]

    def __str__(self) -> str:
        return f"Messages of {self.merchant}"


class MessageTemplate(models.Model):
    """A merchant's own text of a message, for one language and perhaps one segment or decline category only."""

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+")
    name = models.CharField(max_length=60, help_text="As the policy's steps name it, e.g. update_card.")
    locale = models.CharField(max_length=16, help_text="Language such as en, or language and country such as pt-BR.")
    segment = models.CharField(max_length=40, blank=True, default="", help_text="Empty: every segment.")
    category = models.CharField(max_length=30, blank=True, default="", help_text="Empty: every decline category.")
    subject = models.CharField(max_length=200)
    body = models.TextField(help_text="Plain paragraphs with an empty line between them.")
    button = models.CharField(max_length=60)
    enabled = models.BooleanField(default=True)
    changed_by = models.CharField(max_length=100, default="system", editable=False)
    changed_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["merchant", "name", "locale", "segment", "category"], name="message_template_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(filter(None, (self.locale, self.segment, self.category)))})"


class PaymentLink(models.Model):
    """The right of whoever holds the signed link to see and pay one invoice. Times are on the service's clock."""

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+")
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="+")
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="payment_links")
    public_id = models.CharField(max_length=40, unique=True, default=partial(public_id, "lnk"), editable=False)
    purpose = models.CharField(max_length=4, choices=LinkPurpose.choices, default=LinkPurpose.PAY)
    issued_by = models.CharField(max_length=100)
    issued_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    revoked_by = models.CharField(max_length=100, blank=True, default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    def __str__(self) -> str:
        return self.public_id


class Message(FSMModelMixin, models.Model):
    """One message, from its plan to its end. `due_at`: when to look at it next, null while it waits for an event.

    `lease_until` is on the database clock, every other time on the service's. The texts hold a mark where the link
    stands: the link itself is a secret and is put in when the mail is made.
    """

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+")
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="+")
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="messages")
    case = models.ForeignKey(Case, on_delete=models.PROTECT, null=True, blank=True, related_name="messages")
    # The failed attempt that it is about.
    attempt = models.ForeignKey(Attempt, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    link = models.OneToOneField(PaymentLink, on_delete=models.PROTECT, null=True, blank=True, related_name="message")
    public_id = models.CharField(max_length=40, unique=True, default=partial(public_id, "msg"), editable=False)
    audience = models.CharField(max_length=10, choices=[(one.value, one.value.title()) for one in Audience])
    template = models.CharField(max_length=60)
    # Its number among the steps of the case's policy; null for notes before anything has failed.
    step = models.PositiveSmallIntegerField(null=True, blank=True)
    note_key = models.CharField(max_length=120, blank=True, default="")
    status = FSMField(max_length=12, choices=MessageStatus.choices, default=MessageStatus.PLANNED, protected=True)
    planned_for = models.DateTimeField()
    due_at = models.DateTimeField(null=True, blank=True)
    why = models.CharField(max_length=300, blank=True, default="")
    segment = models.CharField(max_length=40, blank=True, default="")
    category = models.CharField(max_length=30, blank=True, default="")
    locale = models.CharField(max_length=16, blank=True, default="")
    source = models.CharField(max_length=120, blank=True, default="", help_text="The text it was made from.")
    address = models.CharField(max_length=254, blank=True, default="")
    subject = models.CharField(max_length=300, blank=True, default="")
    text = models.TextField(blank=True, default="")
    html = models.TextField(blank=True, default="")
    tries = models.PositiveSmallIntegerField(default=0)
    lease_until = models.DateTimeField(null=True, blank=True)
    last_error = models.CharField(max_length=500, blank=True, default="")
    wanted_at = models.DateTimeField(null=True, blank=True)
    sent_at = models.DateTimeField(null=True, blank=True)
    delivered_at = models.DateTimeField(null=True, blank=True)
    bounced_at = models.DateTimeField(null=True, blank=True)
    clicked_at = models.DateTimeField(null=True, blank=True)
    last_clicked_at = models.DateTimeField(null=True, blank=True)
    # The payer did something behind its link: another payment method, a confirmation, a payment.
    acted_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["case", "step"], condition=Q(case__isnull=False), name="message_once_per_step"
            ),
            models.UniqueConstraint(
                fields=["merchant", "note_key"], condition=~Q(note_key=""), name="message_note_once"
            ),
            models.CheckConstraint(
                condition=Q(case__isnull=False, step__isnull=False) | ~Q(note_key=""), name="message_has_a_reason"
            ),
        ]
        indexes = [
            models.Index(
                fields=["due_at", "id"],
                name="message_due",
                condition=Q(status=MessageStatus.PLANNED, due_at__isnull=False),
            ),
            models.Index(fields=["lease_until"], name="message_sending", condition=Q(status=MessageStatus.SENDING)),
            models.Index(fields=["merchant", "-id"], name="message_by_merchant"),
            models.Index(fields=["merchant", "sent_at"], name="message_by_sent", condition=Q(sent_at__isnull=False)),
            models.Index(
                fields=["merchant", "address", "sent_at"],
                name="message_by_address",
                condition=Q(sent_at__isnull=False),
            ),
        ]
        triggers = state_triggers("message", MESSAGE_MOVES, MessageStatus.PLANNED)

    def __str__(self) -> str:
        return self.public_id

    @transition(field=status, **_message["send"])
    def send(self) -> None: ...

    @transition(field=status, **_message["succeed"])
    def succeed(self) -> None: ...

    @transition(field=status, **_message["retry_later"])
    def retry_later(self) -> None: ...

    @transition(field=status, **_message["fail"])
    def fail(self) -> None: ...

    @transition(field=status, **_message["lose_track"])
    def lose_track(self) -> None: ...

    @transition(field=status, **_message["hand_over"])
    def hand_over(self) -> None: ...

    @transition(field=status, **_message["suppress"])
    def suppress(self) -> None: ...

    @transition(field=status, **_message["cancel"])
    def cancel(self) -> None: ...

    @transition(field=status, **_message["deliver"])
    def deliver(self) -> None: ...

    @transition(field=status, **_message["bounce"])
    def bounce(self) -> None: ...


class Suppression(models.Model):
    """An address that gets no mail of this merchant any more, until a person lifts it. Lower case."""

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+")
    address = models.CharField(max_length=254)
    reason = models.CharField(max_length=10, choices=SuppressionReason.choices)
    message = models.ForeignKey(Message, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    since = models.DateTimeField()
    lifted_at = models.DateTimeField(null=True, blank=True)
    lifted_by = models.CharField(max_length=100, blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["merchant", "address"], condition=Q(lifted_at__isnull=True), name="suppression_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.address}: {self.get_reason_display()}"
