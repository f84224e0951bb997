"""Every call to a provider, and what comes back of it later. Services write all rows under the invoice's lock."""

from functools import partial

import pgtrigger
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django_fsm import FSMField, FSMModelMixin, transition

from accounts.models import Merchant
from invoices.models.billing import Invoice, Transaction
from invoices.models.parties import Connection, Customer
from invoices.states import (
    ATTEMPT_FINISHED,
    ATTEMPT_MOVES,
    ATTEMPT_OPEN,
    DISPUTE_MOVES,
    AttemptStatus,
    DisputeKind,
    DisputeStatus,
    Origin,
    TransactionKind,
    Trigger,
)
from recovery_site.common.ids import public_id
from recovery_site.common.states import move_arguments, state_triggers

_attempt = move_arguments(ATTEMPT_MOVES)
_dispute = move_arguments(DISPUTE_MOVES)

_finished_sql = ", ".join(f"'{status}'" for status in ATTEMPT_FINISHED)

# Money facts never change; an outcome changes only by late_success; a code learned later may fill an empty one.
_PROTECT_ATTEMPT = f"""
IF NEW.amount_minor <> OLD.amount_minor OR NEW.currency <> OLD.currency OR NEW.kind <> OLD.kind
   OR NEW.idempotency_key IS DISTINCT FROM OLD.idempotency_key OR NEW.public_id <> OLD.public_id THEN
    RAISE EXCEPTION 'attempt: amount, currency, kind and key of an attempt never change';
END IF;
IF OLD.status IN ({_finished_sql}) AND NEW.status = OLD.status AND (
       (OLD.raw_code <> '' AND NEW.raw_code <> OLD.raw_code)
    OR (OLD.provider_id IS NOT NULL AND NEW.provider_id IS DISTINCT FROM OLD.provider_id)
    OR NEW.captured_minor IS DISTINCT FROM OLD.captured_minor
    OR NEW.finished_at IS DISTINCT FROM OLD.finished_at) THEN
    RAISE EXCEPTION 'attempt: the outcome of a finished attempt is protected';
END IF;
RETURN NEW;
"""


class Attempt(FSMModelMixin, models.Model):
    """One call to a provider for a transaction, ours or reported; what card networks count.

    `public_id` is our reference at the provider. `attempted_at` is the virtual `now` of the attempt, `lease_until` and
    `send_by` are database-clock instants that only this service's workers use.
    """

    # Without db_index: one of the indexes below begins with the same column.
    merchant = models.ForeignKey(
        Merchant, on_delete=models.PROTECT, db_constraint=False, related_name="+", db_index=False
    )
    connection = models.ForeignKey(Connection, on_delete=models.PROTECT, db_constraint=False, related_name="+")
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, db_constraint=False, related_name="+")
    invoice = models.ForeignKey(
        Invoice, on_delete=models.PROTECT, db_constraint=False, related_name="attempts", db_index=False
    )
    transaction = models.ForeignKey(Transaction, on_delete=models.PROTECT, db_constraint=False, related_name="attempts")
    card = models.ForeignKey(
        "tokens.Card", on_delete=models.PROTECT, db_constraint=False, null=True, blank=True, related_name="attempts"
    )
    token = models.ForeignKey(
        "tokens.Token", on_delete=models.PROTECT, db_constraint=False, null=True, blank=True, related_name="attempts"
    )
    # How it was sent, so that it is read and sent again the same way: through another account than the invoice's own,
    # or by telling the biller to collect its invoice.
    gateway = models.ForeignKey(
        Connection,
        on_delete=models.PROTECT,
        db_constraint=False,
        null=True,
        blank=True,
        related_name="+",
        db_index=False,
    )
    collected = models.BooleanField(default=False, db_default=False)
    public_id = models.CharField(max_length=40, unique=True, default=partial(public_id, "att"), editable=False)
    kind = models.CharField(max_length=6, choices=TransactionKind.choices, default=TransactionKind.CHARGE)
    origin = models.CharField(max_length=8, choices=Origin.choices)
    trigger = models.CharField(max_length=12, choices=Trigger.choices, default=Trigger.AUTOMATIC)
    number = models.PositiveIntegerField(help_text="1 for the invoice's first attempt, whoever sent it.")
    status = FSMField(max_length=10, choices=AttemptStatus.choices, default=AttemptStatus.SENDING, protected=True)
    amount_minor = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    captured_minor = models.BigIntegerField(null=True, blank=True)
    idempotency_key = models.CharField(max_length=80, null=True, blank=True)
    provider_id = models.CharField(max_length=200, null=True, blank=True)
    provider_payment_id = models.CharField(max_length=200, blank=True, default="")
    # What the card network, and the gateway behind a biller or a switch, call this try: for their help desks.
    network_reference = models.CharField(max_length=200, blank=True, default="", db_default="")
    gateway_reference = models.CharField(max_length=200, blank=True, default="", db_default="")

    raw_code = models.CharField(max_length=100, blank=True, default="")
    network_code = models.CharField(max_length=40, blank=True, default="")
    advice_code = models.CharField(max_length=40, blank=True, default="")
    message = models.CharField(max_length=500, blank=True, default="")
    category = models.CharField(max_length=30, blank=True, default="")
    explanation = models.CharField(max_length=500, blank=True, default="")
    # False: it provably never reached a network and uses up no budget.
    counts = models.BooleanField(default=True)
    # A bank return: the outcome stays SUCCEEDED, the budget counts it as declined.
    returned_at = models.DateTimeField(null=True, blank=True)
    decision = models.JSONField(default=dict, blank=True, help_text="Why this token at this time, with the inputs.")

    attempted_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, blank=True)
    expected_by = models.DateTimeField(null=True, blank=True)
    next_check_at = models.DateTimeField(null=True, blank=True)
    resends = models.PositiveSmallIntegerField(default=0)
    extended = models.BooleanField(default=False)
    lease_until = models.DateTimeField(null=True, blank=True)
    send_by = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["customer"],
                condition=Q(kind="CHARGE", origin=Origin.OURS, status=AttemptStatus.SENDING),
                name="attempt_one_sending_per_customer",
            ),
            models.UniqueConstraint(
                fields=["invoice"],
                condition=Q(kind="CHARGE", origin=Origin.OURS, status__in=ATTEMPT_OPEN),
                name="attempt_one_open_per_invoice",
            ),
            models.UniqueConstraint(fields=["idempotency_key"], name="attempt_key_once"),
            models.UniqueConstraint(
                fields=["connection", "kind", "provider_id"],
                condition=Q(provider_id__isnull=False),
                name="attempt_provider_id_once",
            ),
            models.CheckConstraint(condition=Q(amount_minor__gt=0), name="attempt_amount_positive"),
            models.CheckConstraint(
                condition=~Q(origin=Origin.OURS) | Q(idempotency_key__isnull=False),
                name="attempt_ours_has_key",
            ),
        ]
        indexes = [
            models.Index(fields=["invoice", "id"], name="attempt_by_invoice"),
            # What lists are filtered by: every value that is rare, since a list that finds few rows reads them all.
            models.Index(fields=["merchant", "category", "-id"], name="attempt_by_category", condition=~Q(category="")),
            models.Index(fields=["merchant", "raw_code", "-id"], name="attempt_by_code", condition=~Q(raw_code="")),
            models.Index(
                fields=["merchant", "trigger", "-id"], name="attempt_asked_for", condition=~Q(trigger=Trigger.AUTOMATIC)
            ),
            models.Index(fields=["merchant", "-id"], name="attempt_outside", condition=Q(origin=Origin.OUTSIDE)),
            models.Index(fields=["merchant", "-id"], name="attempt_errored", condition=Q(status=AttemptStatus.ERRORED)),
            models.Index(
                fields=["merchant", "-id"], name="attempt_of_refund", condition=Q(kind=TransactionKind.REFUND)
            ),
            models.Index(
                fields=["card", "attempted_at"],
                name="attempt_by_card",
                condition=Q(kind="CHARGE", counts=True),
            ),
            # Tries whose card nobody told: they count against every card of their customer.
            models.Index(
                fields=["customer", "attempted_at"],
                name="attempt_without_card",
                condition=Q(kind="CHARGE", counts=True, card__isnull=True),
            ),
            models.Index(
                fields=["next_check_at"],
                name="attempt_open",
                condition=Q(status__in=(AttemptStatus.UNKNOWN, AttemptStatus.AWAITING)),
            ),
            models.Index(fields=["lease_until"], name="attempt_sending", condition=Q(status=AttemptStatus.SENDING)),
            models.Index(
                fields=["connection", "provider_payment_id"],
                name="attempt_by_payment",
                condition=~Q(provider_payment_id=""),
            ),
            models.Index(fields=["merchant", "attempted_at"], name="attempt_by_merchant"),
            models.Index(fields=["merchant", "created_at", "id"], name="attempt_by_created"),
        ]
        triggers = [
            *state_triggers("attempt", ATTEMPT_MOVES, AttemptStatus.SENDING),
            pgtrigger.Trigger(
                name="attempt_protect",
                when=pgtrigger.Before,
                operation=pgtrigger.Update,
                func=_PROTECT_ATTEMPT,
            ),
        ]

    def __str__(self) -> str:
        return self.public_id

    @transition(field=status, **_attempt["succeed"])
    def succeed(self) -> None: ...

    @transition(field=status, **_attempt["decline"])
    def decline(self) -> None: ...

    @transition(field=status, **_attempt["error"])
    def error(self) -> None: ...

    @transition(field=status, **_attempt["wait"])
    def wait(self) -> None: ...

    @transition(field=status, **_attempt["lose_track"])
    def lose_track(self) -> None: ...

    @transition(field=status, **_attempt["late_success"])
    def late_success(self) -> None: ...


class Dispute(FSMModelMixin, models.Model):
    """A card dispute or a bank return of one attempt. `applied_at`: when its loss took effect on the invoice."""

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+")
    connection = models.ForeignKey(Connection, on_delete=models.PROTECT, related_name="+")
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="disputes")
    attempt = models.ForeignKey(Attempt, on_delete=models.PROTECT, related_name="disputes")
    public_id = models.CharField(max_length=40, unique=True, default=partial(public_id, "dsp"), editable=False)
    provider_id = models.CharField(max_length=200)
    kind = models.CharField(max_length=8, choices=DisputeKind.choices, default=DisputeKind.DISPUTE)
    status = FSMField(max_length=5, choices=DisputeStatus.choices, default=DisputeStatus.OPEN, protected=True)
    amount_minor = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    reason_code = models.CharField(max_length=60, blank=True, default="")
    opened_at = models.DateTimeField()
    respond_by = models.DateTimeField(null=True, blank=True, help_text="Evidence that comes later counts no more.")
    closed_at = models.DateTimeField(null=True, blank=True)
    applied_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["connection", "provider_id"], name="dispute_once"),
            models.CheckConstraint(condition=Q(amount_minor__gt=0), name="dispute_amount_positive"),
            models.CheckConstraint(
                condition=Q(applied_at__isnull=True) | Q(applied_at__gte=F("opened_at")),
                name="dispute_applied_after_opened",
            ),
        ]
        indexes = [models.Index(fields=["merchant", "-id"], name="dispute_by_merchant")]
        triggers = state_triggers("dispute", DISPUTE_MOVES, DisputeStatus.OPEN)

    def __str__(self) -> str:
        return self.provider_id

    @transition(field=status, **_dispute["win"])
    def win(self) -> None: ...

    @transition(field=status, **_dispute["lose"])
    def lose(self) -> None: ...
