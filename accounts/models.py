"""Tenants and the people and programs that act for them."""

from functools import partial

from django.contrib.auth.models import AbstractUser
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from accounts.states import Role
from recovery_site.common.ids import public_id


class User(AbstractUser):
    """A person who logs in; what they may see is decided by their memberships."""


class Merchant(models.Model):
    """A tenant: every other row belongs to exactly one."""

    public_id = models.CharField(max_length=40, unique=True, default=partial(public_id, "mer"), editable=False)
    name = models.CharField(max_length=100, unique=True)
    timezone = models.CharField(max_length=64, default="UTC")
    charging_enabled = models.BooleanField(
        default=True, help_text="Kill switch: while off, no charge or refund is sent for this merchant."
    )
    refund_approval_above_minor = models.BigIntegerField(
        null=True,
        blank=True,
        help_text="Refunds above this amount (minor units of the payment's currency) need a second person.",
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """A person's role at one merchant."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    merchant = models.ForeignKey(Merchant, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role.choices, default=Role.VIEWER)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "merchant"], name="membership_once"),
            models.CheckConstraint(condition=Q(role__in=Role.values), name="membership_role_known"),
        ]

    def __str__(self) -> str:
        return f"{self.user} is {self.role} of {self.merchant}"


class ApiKey(models.Model):
    """A program's key. Only a SHA-256 of the 256-bit random key is stored; `prefix` finds it and is shown to people."""

    merchant = models.ForeignKey(Merchant, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=16, unique=True)
    key_hash = models.CharField(max_length=64)
    scopes = ArrayField(models.CharField(max_length=40), default=list)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class GlobalSwitch(models.Model):
    """The one row of the global kill switch, read inside every charge's transaction."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    charging_enabled = models.BooleanField(default=True)
    reason = models.TextField(blank=True, default="")
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = "global switch"
        verbose_name_plural = "global switch"
        constraints = [models.CheckConstraint(condition=Q(id=1), name="global_switch_single_row")]

    def __str__(self) -> str:
        return "charging on" if self.charging_enabled else f"charging off: {self.reason}"
