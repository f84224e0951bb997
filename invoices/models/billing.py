"""What is owed and what is to be moved for it. Services write all rows under the customer's and the invoice's lock."""

from functools import partial

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django_fsm import FSMField, FSMModelMixin, transition

from accounts.models import Merchant
from invoices.models.parties import Connection, Customer
from invoices.states import (
    INVOICE_MOVES,
    TRANSACTION_MOVES,
    TRANSACTION_OPEN,
    InvoiceStatus,
    TransactionKind,
    TransactionStatus,
)
from recovery_site.common.ids import public_id
from recovery_site.common.states import move_arguments, state_triggers

_invoice = move_arguments(INVOICE_MOVES)
_transaction = move_arguments(TRANSACTION_MOVES)


class Invoice(FSMModelMixin, models.Model):
    """An amount owed. `paid_minor` is the sum of captured charges less reversals, `credited_minor` what money in other
    currencies pays by a person's decision; both are kept under the row lock."""

    # Without db_index: one of the indexes below begins with the same column.
    merchant = models.ForeignKey(
        Merchant, on_delete=models.PROTECT, db_constraint=False, related_name="+", db_index=False
    )
    connection = models.ForeignKey(
        Connection, on_delete=models.PROTECT, db_constraint=False, related_name="+", db_index=False
    )
    customer = models.ForeignKey(
        Customer, on_delete=models.PROTECT, db_constraint=False, related_name="invoices", db_index=False
    )
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
            # Few, and left out of all figures.
            models.Index(fields=["id"], name="invoice_superseded", condition=Q(cancel_reason="superseded")),
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
    """Which invoice a provider's payment (a payment intent) belongs to, learned from whichever event says so first.

    `told`: an event of the provider's joins the two; else it may be a guess, where neither names the other.
    """

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, db_constraint=False, related_name="+")
    connection = models.ForeignKey(
        Connection, on_delete=models.PROTECT, db_constraint=False, related_name="+", db_index=False
    )
    provider_payment_id = models.CharField(max_length=200)
    invoice = models.ForeignKey(
        Invoice, on_delete=models.CASCADE, db_constraint=False, related_name="provider_payments"
    )
    told = models.BooleanField(default=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["connection", "provider_payment_id"], name="provider_payment_once")
        ]

    def __str__(self) -> str:
        return self.provider_payment_id


class Transaction(FSMModelMixin, models.Model):
    """One movement of money owed for an invoice, with its retries inside. `captured_minor` is set when it is DONE."""

    merchant = models.ForeignKey(
        Merchant, on_delete=models.PROTECT, db_constraint=False, related_name="+", db_index=False
    )
    # Without db_index: one of the indexes below begins with the same column.
    invoice = models.ForeignKey(
        Invoice, on_delete=models.PROTECT, db_constraint=False, related_name="transactions", db_index=False
    )
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
        "self",
        on_delete=models.PROTECT,
        db_constraint=False,
        null=True,
        blank=True,
        related_name="refunds",
        db_index=False,
    )
    duplicate_of = models.ForeignKey(
        "self",
        on_delete=models.PROTECT,
        db_constraint=False,
        null=True,
        blank=True,
        related_name="duplicates",
        db_index=False,
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
