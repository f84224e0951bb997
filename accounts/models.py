"""Tenants and the people and programs that act for them."""

from functools import partial

from django.contrib.auth.models import AbstractUser
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from oauth2_provider.models import AbstractApplication

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
        help_text="Once the refunds of one invoice add up to more than this (minor units of the payment's currency), a"
        " second person has to approve. Empty: never; 0: always.",
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
    # Who has seen its text: what the key asks for, this person cannot approve as a second one.
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    prefix = models.CharField(max_length=16, unique=True)
    key_hash = models.CharField(max_length=64)
    scopes = ArrayField(models.CharField(max_length=40), default=list)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class OAuthApplication(AbstractApplication):
    """A program that gets short tokens for one merchant: for itself, or for people who let it act for them.

    `user` is the person who made it, `scopes` the most that its tokens can have.
    """

    # The library's own would end the application with the account of the person.
    user = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    merchant = models.ForeignKey(Merchant, on_delete=models.CASCADE, related_name="oauth_applications")
    scopes = ArrayField(models.CharField(max_length=40), default=list)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta(AbstractApplication.Meta):
        verbose_name = "OAuth application"

    def is_usable(self, request: object) -> bool:
        return self.revoked_at is None


class IdempotencyRecord(models.Model):
    """What a POST with an Idempotency-Key answered. Without an answer it is running, or its process died."""

    merchant = models.ForeignKey(Merchant, on_delete=models.CASCADE, related_name="+", db_index=False)
    key = models.CharField(max_length=255)
    # SHA-256 of address and body: the same key with anything else is a mistake of the caller.
    fingerprint = models.CharField(max_length=64)
    status_code = models.PositiveSmallIntegerField(null=True, blank=True)
    # An answer may hold a secret that is shown once, and personal data.
    answer_encrypted = models.TextField(blank=True, default="", editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["merchant", "key"], name="idempotency_key_once")]
        indexes = [models.Index(fields=["merchant", "created_at"], name="idempotency_by_age")]

    def __str__(self) -> str:
        return self.key


class RateWindow(models.Model):
    """The calls of one credential in the current window: counted here only while Redis cannot be reached."""

    key = models.CharField(max_length=120, primary_key=True)
    started_at = models.DateTimeField()
    count = models.PositiveIntegerField()

    def __str__(self) -> str:
        return f"{self.key}: {self.count}"


class ApiAccess(models.Model):
    """Who read or changed what, through the API or on a page: one row per answer, no bodies, no query strings.

    Without a merchant: a page about several, of a person who sees several.
    """

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, null=True, related_name="+", db_index=False)
    actor = models.CharField(max_length=100)
    credential = models.CharField(max_length=100)
    method = models.CharField(max_length=7)
    route = models.CharField(max_length=120)
    subject = models.CharField(max_length=200, blank=True, default="")
    status_code = models.PositiveSmallIntegerField()
    request_id = models.CharField(max_length=64, blank=True, default="")
    at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        verbose_name = "access"
        verbose_name_plural = "accesses"
        indexes = [
            models.Index(fields=["merchant", "-id"], name="api_access_by_merchant"),
            models.Index(fields=["merchant", "subject", "-id"], name="api_access_by_subject"),
            models.Index(fields=["merchant", "actor", "-id"], name="api_access_by_actor"),
            models.Index(fields=["request_id"], name="api_access_by_request"),
        ]

    def __str__(self) -> str:
        return f"{self.method} {self.route} by {self.actor}"


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
