"""Whom the money moves between: a merchant's connection to a provider, and the customers there."""

from functools import partial

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from accounts.models import Merchant
from invoices.states import ConnectionMode
from recovery_site.common.ids import public_id


class Connection(models.Model):
    """A merchant's account at one provider. Secrets are encrypted; `settings` holds only what may be shown."""

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="connections")
    public_id = models.CharField(max_length=40, unique=True, default=partial(public_id, "con"), editable=False)
    provider = models.CharField(max_length=40)
    name = models.CharField(max_length=100)
    mode = models.CharField(max_length=10, choices=ConnectionMode.choices, default=ConnectionMode.CHARGE)
    enabled = models.BooleanField(default=True)
    base_url = models.CharField(max_length=300, blank=True, default="")
    secrets_encrypted = models.TextField(blank=True, default="", editable=False)
    settings = models.JSONField(default=dict, blank=True)
    # How many of the biller's own retries to wait for: 0 takes over at once, null never takes over.
    take_over_after = models.PositiveSmallIntegerField(null=True, blank=True, default=0)
    # A biller's invoices are charged through this account of the same merchant, and written back (mode charge).
    gateway = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True, related_name="billers")
    paused_reason = models.TextField(
        blank=True,
        default="",
        help_text="Set when the provider refuses our credentials; cleared when they are replaced.",
    )
    # The provider's clock up to which its payments were compared with this ledger (reverse scan).
    scanned_until = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["merchant", "provider", "name"], name="connection_name_once"),
            models.CheckConstraint(condition=Q(mode__in=ConnectionMode.values), name="connection_mode_known"),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.provider})"


class Customer(models.Model):
    """The payer at one connection; its row is the first lock of every money operation."""

    merchant = models.ForeignKey(
        Merchant, on_delete=models.PROTECT, db_constraint=False, related_name="+", db_index=False
    )
    connection = models.ForeignKey(
        Connection, on_delete=models.PROTECT, db_constraint=False, related_name="customers", db_index=False
    )
    public_id = models.CharField(max_length=40, unique=True, default=partial(public_id, "cus"), editable=False)
    connector_customer_id = models.CharField(max_length=200)
    email = models.CharField(max_length=254, blank=True, default="")
    name = models.CharField(max_length=200, blank=True, default="")
    country = models.CharField(max_length=2, blank=True, default="")
    timezone = models.CharField(max_length=64, blank=True, default="")
    locale = models.CharField(max_length=16, blank=True, default="")
    first_seen_at = models.DateTimeField()
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        # Beside these, `customer_by_name` of migration 0016 finds the beginning of a name without case.
        constraints = [
            models.UniqueConstraint(fields=["connection", "connector_customer_id"], name="customer_once_per_connection")
        ]
        indexes = [
            models.Index(fields=["merchant", "created_at", "id"], name="customer_by_created"),
            models.Index(fields=["merchant", "email"], name="customer_by_email"),
        ]

    def __str__(self) -> str:
        return self.name or self.connector_customer_id
