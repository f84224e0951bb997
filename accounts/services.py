"""Tenants, their people, their programs' keys, and the kill switches. Every write of this app."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from zoneinfo import available_timezones

import structlog
from django.contrib.admin.models import CHANGE, LogEntry
from django.db import IntegrityError, transaction

from accounts.keys import key_generate, key_hash
from accounts.models import ApiKey, GlobalSwitch, Membership, Merchant, User
from accounts.scopes import Scope
from accounts.states import Role
from recovery_site.common.errors import Conflict, InvalidInput, NotFound

logger = structlog.get_logger(__name__)

# A key that is being replaced stays valid this long, so that no program has to change in the same second.
ROTATION_OVERLAP = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key at the only moment its text is known."""

    row: ApiKey
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewMerchant:
    merchant: Merchant
    api_key: NewApiKey


@transaction.atomic
def merchant_create(*, name: str, timezone: str = "UTC") -> NewMerchant:
    """A tenant and its first API key, which may do everything. Raises InvalidInput, Conflict for a taken name."""
    name = name_clean(name, "A merchant")
    timezone_require(timezone)
    try:
        with transaction.atomic():
            merchant = Merchant.objects.create(name=name, timezone=timezone)
    except IntegrityError as error:
        raise Conflict(f"There is already a merchant named {name!r}; choose another name.") from error
    key = api_key_create(merchant=merchant, name="first key", scopes=Scope.values)
    return NewMerchant(merchant, key)


def timezone_require(name: str) -> None:
    """Raises InvalidInput unless both Python and the database know the zone."""
    if name not in available_timezones() - {"localtime"}:  # a file of the machine, no zone to the database
        raise InvalidInput(f"{name!r} is no time zone; use an IANA name such as Europe/Paris.")


def name_clean(name: str, what: str) -> str:
    """The name without superfluous blanks. Raises InvalidInput."""
    cleaned = re.sub(r"\s+", " ", name).strip()
    if not 1 <= len(cleaned) <= 100 or not cleaned.isprintable():
        raise InvalidInput(f"{what} needs a name of 1 to 100 printable characters.")
    return cleaned


def merchant_require(name: str) -> Merchant:
    """A merchant by name or public id; raises NotFound."""
    merchant = Merchant.objects.filter(name=name).first() or Merchant.objects.filter(public_id=name).first()
    if merchant is None:
        raise NotFound(f"There is no merchant {name!r}; `manage.py merchant list` shows those there are.")
    return merchant


@transaction.atomic
def api_key_create(
    *,
    merchant: Merchant,
    name: str,
    scopes: Sequence[str],
    expires_at: datetime | None = None,
    created_by: User | None = None,
) -> NewApiKey:
    """A new key; its text is returned once and stored nowhere. Raises InvalidInput for unknown scopes."""
    scopes = scopes_check(scopes)
    plain = key_generate()
    row = ApiKey.objects.create(
        merchant=merchant,
        name=name_clean(name, "An API key"),
        prefix=plain.prefix,
        key_hash=key_hash(plain.text),
        scopes=scopes,
        expires_at=expires_at,
        created_by=created_by,
    )
    logger.info("api_key_created", merchant=merchant.public_id, prefix=plain.prefix, scopes=row.scopes)
    return NewApiKey(row, plain.text)


def scopes_check(scopes: Sequence[str]) -> list[str]:
    """The scopes in order, each once. Raises InvalidInput for none and for unknown ones."""
    unknown = sorted(set(scopes) - set(Scope.values))
    if unknown or not scopes:
        raise InvalidInput(f"Scopes must be some of {', '.join(Scope.values)}; not {', '.join(unknown) or 'none'}.")
    return sorted(set(scopes))


@transaction.atomic
def api_key_rotate(
    *, api_key_pk: int, now: datetime, overlap: timedelta = ROTATION_OVERLAP, by: User | None = None
) -> NewApiKey:
    """A new key with the old one's name and scopes; the old one ends after `overlap`. Raises Conflict."""
    old = ApiKey.objects.select_for_update(of=("self",)).select_related("merchant").filter(pk=api_key_pk).first()
    if old is None:
        raise NotFound("This API key does not exist.")
    if old.revoked_at is not None or (old.expires_at is not None and old.expires_at <= now):
        raise Conflict(f"The key {old.prefix} is no longer valid; create a new one instead.")
    end = now + overlap
    new = api_key_create(
        merchant=old.merchant, name=old.name, scopes=old.scopes, expires_at=old.expires_at, created_by=by
    )
    old.expires_at = end if old.expires_at is None else min(end, old.expires_at)
    old.save(update_fields=["expires_at"])
    return new


def api_key_revoke(*, api_key_pk: int, now: datetime) -> None:
    """End a key at once; ending it twice changes nothing."""
    if ApiKey.objects.filter(pk=api_key_pk, revoked_at__isnull=True).update(revoked_at=now):
        logger.info("api_key_revoked", api_key=api_key_pk)


@transaction.atomic
def membership_set(*, user: User, merchant: Merchant, role: str | None) -> Membership | None:
    """Give a person a role at a merchant, change it, or with None take it away.

    Raises Conflict if the merchant would be left without an owner, InvalidInput for an unknown role.
    """
    if role is not None and role not in Role.values:
        raise InvalidInput(f"{role!r} is no role; use one of {', '.join(Role.values)}.")
    # The merchant's row serialises membership changes, so that two owners cannot resign past each other.
    Merchant.objects.select_for_update(no_key=True).get(pk=merchant.pk)
    current = Membership.objects.filter(user=user, merchant=merchant).first()
    if current is not None and current.role == Role.OWNER and role != Role.OWNER:
        others = Membership.objects.filter(merchant=merchant, role=Role.OWNER).exclude(pk=current.pk)
        if not others.exists():
            raise Conflict(f"{user} is the only owner of {merchant}; make somebody else an owner first.")
    if role is None:
        if current is not None:
            current.delete()
        return None
    membership, _ = Membership.objects.update_or_create(user=user, merchant=merchant, defaults={"role": role})
    return membership


@transaction.atomic
def merchant_charging_set(*, merchant_pk: int, enabled: bool, reason: str, user: User) -> None:
    """The merchant's kill switch: while off, no charge or refund is sent for it; every charge reads it in its own
    transaction, so it holds from the commit on. The reason and the person go into the admin's history and the log."""
    reason = _reason(reason)
    merchant = Merchant.objects.filter(pk=merchant_pk).first()
    if merchant is None:
        raise NotFound("This merchant does not exist.")
    Merchant.objects.filter(pk=merchant_pk).update(charging_enabled=enabled)
    _audit(user, merchant, enabled, reason)


@transaction.atomic
def merchant_refund_limit_set(*, merchant_pk: int, above_minor: int | None, user: User) -> None:
    """From which sum of an invoice's refunds on a second person has to approve; None: never. The person, the old and
    the new limit go into the admin's history and the log. Raises InvalidInput, NotFound."""
    if above_minor is not None and not 0 <= above_minor < 1 << 63:
        raise InvalidInput("The limit is an amount in minor units, 0 or more; leave it empty for no limit.")
    merchant = Merchant.objects.select_for_update(no_key=True).filter(pk=merchant_pk).first()
    if merchant is None:
        raise NotFound("This merchant does not exist.")
    before = merchant.refund_approval_above_minor
    if before == above_minor:
        return
    merchant.refund_approval_above_minor = above_minor
    merchant.save(update_fields=["refund_approval_above_minor"])
    told = ["no limit" if limit is None else f"{limit} minor units" for limit in (above_minor, before)]
    message = f"Refunds need a second person above: {told[0]} (before: {told[1]})"
    LogEntry.objects.log_actions(user.pk, [merchant], CHANGE, change_message=message)
    limits = {"above_minor": above_minor, "before_minor": before}
    logger.warning("refund_limit_changed", merchant=merchant.public_id, actor=f"user:{user.pk}", **limits)


@transaction.atomic
def global_charging_set(*, enabled: bool, reason: str, user: User) -> None:
    """The global kill switch: while off, nothing is sent for anybody."""
    reason = _reason(reason)
    switch, _ = GlobalSwitch.objects.update_or_create(pk=1, defaults={"charging_enabled": enabled, "reason": reason})
    _audit(user, switch, enabled, reason)


def _reason(reason: str) -> str:
    reason = reason.strip()
    if not reason:
        raise InvalidInput("Say why: the reason is shown to everybody who wonders what charging is doing.")
    return reason[:500]


def _audit(user: User, switched: Merchant | GlobalSwitch, enabled: bool, reason: str) -> None:
    """Into the admin's history, which people read, and without the free text into the log."""
    message = f"Charging switched {'on' if enabled else 'off'}: {reason}"
    LogEntry.objects.log_actions(user.pk, [switched], CHANGE, change_message=message)
    name = getattr(switched, "public_id", "global")
    logger.warning("charging_switched", switch=name, enabled=enabled, actor=f"user:{user.pk}")
