"""What is owed and every try to collect it. Services write all rows under the customer's and the invoice's lock."""

from functools import partial

import pgtrigger
from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django_fsm import FSMField, FSMModelMixin, transition

from accounts.models import Merchant
from invoices.models.parties import Connection, Customer
from invoices.states import (
    ATTEMPT_FINISHED,
    ATTEMPT_MOVES,
    ATTEMPT_OPEN,
    DISPUTE_MOVES,
    INVOICE_MOVES,
    TRANSACTION_MOVES,
    TRANSACTION_OPEN,
    AttemptStatus,
    DisputeKind,
    DisputeStatus,
    InvoiceStatus,
    Origin,
    TransactionKind,
    TransactionStatus,
    Trigger,
)
from recovery_site.common.ids import public_id
from recovery_site.common.states import move_arguments, state_triggers

_invoice = move_arguments(INVOICE_MOVES)
_transaction = move_arguments(TRANSACTION_MOVES)
_attempt = move_arguments(ATTEMPT_MOVES)
_dispute = move_arguments(DISPUTE_MOVES)


class Invoice(FSMModelMixin, models.Model):
    """An amount owed. `paid_minor` is the sum of captured charges less reversals, `credited_minor` what money in other
    currencies pays by a person's decision; both are kept under the row lock."""

    # Without db_index: one of the indexes below begins with the same column.
    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+", db_index=False)
    connection = models.ForeignKey(Connection, on_delete=models.PROTECT, related_name="+", db_index=False)
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="invoices", db_index=False)
    public_id = models.CharField(max_length=40, unique=True, default=partial(public_id, "inv"), editable=False)
    # Null while only a payment is known whose invoice has not been named yet.
    provider_invoice_id = models.CharField(max_length=200, null=True, blank=True)
    number = models.CharField(max_length=100, blank=True, default="")
    description = models.CharField(max_length=500, blank=True, default="")
    status = FSMField(max_length=16, choices=InvoiceStatus.choices, default=InvoiceStatus.INIT, protected=True)
    amount_minor = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    paid_minor = models.BigIntegerField(default=0)
    refunded_minor = models.BigIntegerField(default=0)
    credited_minor = models.BigIntegerField(default=0)
    subscription_id = models.CharField(max_length=200, blank=True, default="")
    plan = models.CharField(max_length=200, blank=True, default="")
    interval = models.CharField(max_length=40, blank=True, default="")
    # When the provider last described this invoice; older descriptions that arrive late change nothing.
    described_at = models.DateTimeField(null=True, blank=True)
    # The billing system's own next try of this invoice, and how many it has made.
    provider_retry_at = models.DateTimeField(null=True, blank=True)
    provider_attempt_count = models.PositiveIntegerField(default=0)
    # What the biller answered when its own collection of this invoice was switched off; empty = not switched off.
    collection_stopped = models.CharField(max_length=200, blank=True, default="")
    cancel_reason = models.CharField(max_length=40, blank=True, default="")
    due_at = models.DateTimeField(null=True, blank=True)
    issued_at = models.DateTimeField()
    settled_at = models.DateTimeField(null=True, blank=True)
    # Who looks after it; a member of the merchant.
    assignee = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+", db_index=False
    )
    # Head of the event chain.
    last_seq = models.PositiveIntegerField(default=0, editable=False)
    last_hash = models.CharField(max_length=64, blank=True, default="", editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    # The transaction in which `invoice_lock` loaded this instance; `record_event` demands that it still runs.
    lock_held: object | None = None

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["connection", "provider_invoice_id"],
                condition=Q(provider_invoice_id__isnull=False),
                name="invoice_provider_id_once",
            ),
            models.CheckConstraint(condition=Q(amount_minor__gte=0), name="invoice_amount_not_negative"),
            models.CheckConstraint(condition=Q(status__in=InvoiceStatus.values), name="invoice_status_known"),
        ]
        indexes = [
            models.Index(fields=["merchant", "created_at", "id"], name="invoice_by_created"),
            models.Index(fields=["merchant", "status", "-id"], name="invoice_by_status"),
            models.Index(fields=["merchant", "currency", "-id"], name="invoice_by_currency"),
            models.Index(fields=["customer", "-id"], name="invoice_by_customer"),
            models.Index(fields=["connection", "subscription_id"], name="invoice_by_subscription"),
            models.Index(fields=["merchant", "number"], name="invoice_by_number", condition=~Q(number="")),
            models.Index(fields=["assignee", "-id"], name="invoice_by_assignee", condition=Q(assignee__isnull=False)),
        ]
        triggers = state_triggers("invoice", INVOICE_MOVES, InvoiceStatus.INIT)

    def __str__(self) -> str:
        return self.number or self.provider_invoice_id or self.public_id

    @property
    def due_minor(self) -> int:
        """What is owed now, never negative; refunds do not make an amount due again."""
        return max(0, self.amount_minor - self.paid_minor - self.credited_minor)

    @transition(field=status, **_invoice["start"])
    def start(self) -> None: ...

    @transition(field=status, **_invoice["settle"])
    def settle(self) -> None: ...

    @transition(field=status, **_invoice["fail"])
    def fail(self) -> None: ...

    @transition(field=status, **_invoice["resume"])
    def resume(self) -> None: ...

    @transition(field=status, **_invoice["begin_refund"])
    def begin_refund(self) -> None: ...

    @transition(field=status, **_invoice["finish_refund"])
    def finish_refund(self) -> None: ...

    @transition(field=status, **_invoice["settle_again"])
    def settle_again(self) -> None: ...

    @transition(field=status, **_invoice["reverse"])
    def reverse(self) -> None: ...

    @transition(field=status, **_invoice["cancel"])
    def cancel(self) -> None: ...


class ProviderPayment(models.Model):
    """Which invoice a provider's payment (a payment intent) belongs to, learned from whichever event says so first."""

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+")
    connection = models.ForeignKey(Connection, on_delete=models.PROTECT, related_name="+", db_index=False)
    provider_payment_id = models.CharField(max_length=200)
    invoice = models.ForeignKey(Invoice, on_delete=models.CASCADE, related_name="provider_payments")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["connection", "provider_payment_id"], name="provider_payment_once")
        ]

    def __str__(self) -> str:
        return self.provider_payment_id


class Transaction(FSMModelMixin, models.Model):
    """One movement of money owed for an invoice, with its retries inside. `captured_minor` is set when it is DONE."""

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+", db_index=False)
    # Without db_index: one of the indexes below begins with the same column.
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="transactions", db_index=False)
    public_id = models.CharField(max_length=40, unique=True, default=partial(public_id, "txn"), editable=False)
    kind = models.CharField(max_length=6, choices=TransactionKind.choices, default=TransactionKind.CHARGE)
    status = FSMField(max_length=16, choices=TransactionStatus.choices, default=TransactionStatus.INIT, protected=True)
    amount_minor = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    captured_minor = models.BigIntegerField(null=True, blank=True)
    # Money in another currency than the invoice's pays nothing by itself. How much of the debt it pays after all, in
    # the invoice's currency, is a person's decision; it counts as credited, never as paid.
    settles_minor = models.BigIntegerField(null=True, blank=True)
    # A refund names the charge it gives back; a second payment of the same debt names the first.
    refund_of = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="refunds", db_index=False
    )
    duplicate_of = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="duplicates", db_index=False
    )
    reason = models.CharField(max_length=500, blank=True, default="")
    failure = models.CharField(max_length=500, blank=True, default="")
    # A refund that the provider took back after it had succeeded: the money is with the merchant again.
    reversed_at = models.DateTimeField(null=True, blank=True)
    created_by = models.CharField(max_length=100, default="system")
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(amount_minor__gt=0), name="transaction_amount_positive"),
            models.CheckConstraint(
                condition=Q(settles_minor__isnull=True) | Q(settles_minor__gt=0), name="transaction_settles_positive"
            ),
            models.CheckConstraint(
                condition=Q(kind=TransactionKind.CHARGE) | Q(refund_of__isnull=False),
                name="transaction_refund_names_charge",
            ),
            models.UniqueConstraint(
                fields=["invoice"],
                condition=Q(kind=TransactionKind.CHARGE, status__in=TRANSACTION_OPEN),
                name="transaction_one_open_charge_per_invoice",
            ),
        ]
        indexes = [
            models.Index(fields=["invoice", "id"], name="transaction_by_invoice"),
            models.Index(fields=["merchant", "created_at", "id"], name="transaction_by_created"),
            models.Index(fields=["merchant", "status", "-id"], name="transaction_by_status"),
            models.Index(fields=["refund_of"], name="transaction_refund_of", condition=Q(refund_of__isnull=False)),
            models.Index(
                fields=["duplicate_of"], name="transaction_duplicate_of", condition=Q(duplicate_of__isnull=False)
            ),
            models.Index(
                fields=["merchant", "-id"], name="refund_by_merchant", condition=Q(kind=TransactionKind.REFUND)
            ),
        ]
        triggers = state_triggers("transaction", TRANSACTION_MOVES, TransactionStatus.INIT)

    def __str__(self) -> str:
        return self.public_id

    @transition(field=status, **_transaction["submit"])
    def submit(self) -> None: ...

    @transition(field=status, **_transaction["succeed"])
    def succeed(self) -> None: ...

    @transition(field=status, **_transaction["retry_later"])
    def retry_later(self) -> None: ...

    @transition(field=status, **_transaction["fail"])
    def fail(self) -> None: ...

    @transition(field=status, **_transaction["cancel"])
    def cancel(self) -> None: ...


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
    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+", db_index=False)
    connection = models.ForeignKey(Connection, on_delete=models.PROTECT, related_name="+")
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="+")
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="attempts", db_index=False)
    transaction = models.ForeignKey(Transaction, on_delete=models.PROTECT, related_name="attempts")
    card = models.ForeignKey("tokens.Card", on_delete=models.PROTECT, null=True, blank=True, related_name="attempts")
    token = models.ForeignKey("tokens.Token", on_delete=models.PROTECT, null=True, blank=True, related_name="attempts")
    # How it was sent, so that it is read and sent again the same way: through another account than the invoice's own,
    # or by telling the biller to collect its invoice.
    gateway = models.ForeignKey(
        Connection, on_delete=models.PROTECT, null=True, blank=True, related_name="+", db_index=False
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
