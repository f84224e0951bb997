"""Cards and the tokens that name them. No number is ever stored: a card is the provider's fingerprint."""

import uuid
from functools import partial

import pgtrigger
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from accounts.models import Merchant
from invoices.models import Connection, Customer
from recovery_site.common.db import TransactionIdField
from recovery_site.common.ids import public_id
from tokens.networks import BANK_NETWORKS, NETWORK_NAMES
from tokens.states import TokenStatus


class Card(models.Model):
    """The underlying card (or bank account) of a connection; the row whose lock guards its budget.

    Cards that share `budget_group` are locked and counted together: a replacement joins the group of the card it
    replaces, so nothing is copied and nothing is forgotten.
    """

    merchant = models.ForeignKey(
        Merchant, on_delete=models.PROTECT, db_constraint=False, related_name="+", db_index=False
    )
    connection = models.ForeignKey(
        Connection, on_delete=models.PROTECT, db_constraint=False, related_name="+", db_index=False
    )
    public_id = models.CharField(max_length=40, unique=True, default=partial(public_id, "crd"), editable=False)
    fingerprint = models.CharField(max_length=200)
    budget_group = models.UUIDField(default=uuid.uuid4, db_index=True)
    kind = models.CharField(max_length=20, default="card")
    network = models.CharField(max_length=20, default="unknown")
    last4 = models.CharField(max_length=4, blank=True, default="")
    exp_month = models.PositiveSmallIntegerField(null=True, blank=True)
    exp_year = models.PositiveSmallIntegerField(null=True, blank=True)
    funding = models.CharField(max_length=20, blank=True, default="")
    country = models.CharField(max_length=2, blank=True, default="")
    bin = models.CharField(max_length=8, blank=True, default="", db_default="")
    issuer = models.CharField(max_length=100, blank=True, default="", db_default="")
    # A network's "never again" answer. `stop_revivable` is false for stops that a new expiry does not lift.
    stopped_at = models.DateTimeField(null=True, blank=True)
    stop_code = models.CharField(max_length=40, blank=True, default="")
    stop_revivable = models.BooleanField(default=True)
    # A network's "not before" answer (Mastercard advice codes).
    wait_until = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # The transaction that last changed what figures are grouped by; the database fills it. Cards have no event chain,
    # and followers of the ledger must hear of this, too.
    facts_xid = TransactionIdField(null=True, editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["connection", "fingerprint"], name="card_once_per_connection")]
        indexes = [
            # Customers read the last digits out on the telephone.
            models.Index(fields=["merchant", "last4"], name="card_by_last4", condition=~Q(last4="")),
            models.Index(fields=["facts_xid"], name="card_by_facts_xid", condition=Q(facts_xid__isnull=False)),
            models.Index(fields=["merchant", "created_at", "id"], name="card_by_created"),
        ]
        triggers = [
            pgtrigger.Trigger(
                name="card_facts_changed",
                when=pgtrigger.Before,
                operation=pgtrigger.UpdateOf("network", "country"),
                condition=pgtrigger.AnyChange("network", "country"),
                func="NEW.facts_xid = pg_current_xact_id(); RETURN NEW;",
            )
        ]

    def __str__(self) -> str:
        name = NETWORK_NAMES.get(self.network, "")
        if self.last4:
            return f"{name or 'card'} •••• {self.last4}"
        return f"{name} {'account' if self.network in BANK_NETWORKS else 'card'}".strip()


class Token(models.Model):
    """A payment processor token of a customer. DECLINED: a hard decline, over only when the card behind it changes."""

    merchant = models.ForeignKey(
        Merchant, on_delete=models.PROTECT, db_constraint=False, related_name="+", db_index=False
    )
    connection = models.ForeignKey(
        Connection, on_delete=models.PROTECT, db_constraint=False, related_name="+", db_index=False
    )
    customer = models.ForeignKey(
        Customer, on_delete=models.PROTECT, db_constraint=False, related_name="tokens", db_index=False
    )
    card = models.ForeignKey(Card, on_delete=models.PROTECT, db_constraint=False, related_name="tokens")
    public_id = models.CharField(max_length=40, unique=True, default=partial(public_id, "tok"), editable=False)
    provider_token = models.CharField(max_length=200)
    # What the gateway calls a biller's payment method and its payer, read before it is charged there.
    gateway_token = models.CharField(max_length=200, blank=True, default="")
    gateway_customer_id = models.CharField(max_length=200, blank=True, default="")
    status = models.CharField(max_length=10, choices=TokenStatus.choices, default=TokenStatus.LIVE)
    decline_code = models.CharField(max_length=100, blank=True, default="")
    declined_at = models.DateTimeField(null=True, blank=True)
    is_default = models.BooleanField(default=False)
    last_success_at = models.DateTimeField(null=True, blank=True)
    added_by_payment_id = models.CharField(max_length=200, blank=True, default="")
    first_seen_at = models.DateTimeField()
    # When the provider last said which card is behind it; older news that come late change nothing.
    described_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["connection", "provider_token"], name="token_once_per_connection"),
            models.UniqueConstraint(
                fields=["customer"], condition=Q(is_default=True), name="token_one_default_per_customer"
            ),
        ]
        indexes = [
            models.Index(fields=["customer", "id"], name="token_by_customer"),
            models.Index(fields=["merchant", "created_at", "id"], name="token_by_created"),
        ]

    def __str__(self) -> str:
        return f"{self.card}"


class ImportedMark(models.Model):
    """Tries of a card that somebody else made and that came as history, not as invoices (docs/adr/0007).

    `count` tries at `at` count as declines of the card like attempts do. Without an amount they count against every
    amount. One row per token, instant and source, so that the same file read twice changes nothing.
    """

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+")
    card = models.ForeignKey(Card, on_delete=models.PROTECT, related_name="imported_marks")
    token = models.ForeignKey(Token, on_delete=models.PROTECT, related_name="imported_marks")
    at = models.DateTimeField()
    count = models.PositiveSmallIntegerField()
    amount_minor = models.BigIntegerField(null=True, blank=True)
    currency = models.CharField(max_length=3, blank=True, default="")
    source = models.CharField(max_length=60)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["token", "at", "source"], name="imported_mark_once"),
            models.CheckConstraint(condition=Q(count__gte=1), name="imported_mark_counts"),
        ]
        indexes = [models.Index(fields=["card", "at"], name="imported_mark_by_card")]

    def __str__(self) -> str:
        return f"{self.count} at {self.at:%Y-%m-%d %H:%M}"


class RetryLimit(models.Model):
    """A merchant's own limit where it is stricter than the network's rule of that name; `*` is every network."""

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+")
    network = models.CharField(max_length=20)
    name = models.CharField(max_length=60)
    limit = models.PositiveSmallIntegerField()
    changed_by = models.CharField(max_length=100)
    changed_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["merchant", "network", "name"], name="retry_limit_once"),
            models.CheckConstraint(condition=Q(limit__gte=1), name="retry_limit_at_least_one"),
        ]

    def __str__(self) -> str:
        return f"{self.network} {self.name}: {self.limit}"
