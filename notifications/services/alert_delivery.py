"""Alerts on their way: by mail or to a Slack-compatible webhook, tried again with back-off, in the end given up."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from smtplib import SMTPException

import structlog
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import EmailMessage
from django.core.validators import validate_email
from django.db import transaction
from django.urls import reverse

from accounts.models import Merchant
from notifications.models import AlertDelivery, AlertRoute
from notifications.states import AlertChannel, DeliveryStatus
from recovery_site.common.crypto import decrypt_json, encrypt_json
from recovery_site.common.db import DatabaseClock
from recovery_site.common.errors import InvalidInput
from recovery_site.common.outward import Undelivered, post_json
from recovery_site.common.scrubbing import scrub_text
from recovery_site.common.targets import url_check

log = structlog.get_logger()
BATCH = 50
LEASE = timedelta(minutes=5)
BACK_OFF = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 30, 120, 720, 1440))


@dataclass(slots=True)
class DeliveryCounts:
    sent: int = 0
    retried: int = 0
    failed: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


@transaction.atomic
def alert_route_set(
    *,
    merchant: Merchant,
    name: str,
    channel: AlertChannel,
    target: str,
    kinds: Sequence[str] = (),
    enabled: bool = True,
    actor: str,
) -> AlertRoute:
    """Create or change the merchant's route of that name. `target` is a mail address or a webhook's address; empty
    keeps the one there is. Raises InvalidInput."""
    name = name.strip()[:100]
    if not name:
        raise InvalidInput("Give the route a name, such as “Finance” or “#billing”.")
    known = AlertRoute.objects.filter(merchant=merchant, name=name).first()
    values: dict[str, object] = {"channel": channel, "kinds": sorted(set(kinds)), "enabled": enabled}
    if target.strip():
        values |= alert_target(channel, target)
    elif known is None or known.channel != channel:
        alert_target(channel, target)
    route, _ = AlertRoute.objects.update_or_create(
        merchant=merchant, name=name, defaults=values, create_defaults={**values, "created_by": actor[:100]}
    )
    log.info("alert_route_set", merchant=merchant.public_id, channel=channel, enabled=enabled, actor=actor)
    return route


def alert_target(channel: AlertChannel, target: str) -> dict[str, str]:
    """The columns that say where a route leads. Raises InvalidInput for what is no such place."""
    target = target.strip()
    if channel == AlertChannel.SLACK:
        url_check(target)
        return {"address": "", "secret_encrypted": encrypt_json({"url": target})}
    try:
        validate_email(target)
    except ValidationError as error:
        raise InvalidInput(f"{target!r} is no mail address.") from error
    return {"address": target, "secret_encrypted": ""}


def alert_deliveries_drain(
    *, now: datetime, limit: int = 500, keep_going: Callable[[], bool] = lambda: True
) -> DeliveryCounts:
    """Send what is due at `now`, oldest first, with no transaction open. A place that fails gets it again later."""
    counts = DeliveryCounts()
    done = 0
    while done < limit and keep_going():
        claimed = _claim(now, min(BATCH, limit - done))
        if not claimed:
            break
        for delivery in claimed:
            _deliver(delivery, now, counts)
        done += len(claimed)
    return counts


@transaction.atomic
def _claim(now: datetime, limit: int) -> list[AlertDelivery]:
    due = AlertDelivery.objects.filter(status=DeliveryStatus.PENDING, due_at__lte=now).exclude(
        lease_until__gt=DatabaseClock()
    )
    rows = due.order_by("due_at", "pk").select_for_update(no_key=True, of=("self",), skip_locked=True)
    claimed = list(rows.select_related("alert__invoice", "alert__merchant", "route")[:limit])
    AlertDelivery.objects.filter(pk__in=[delivery.pk for delivery in claimed]).update(
        lease_until=DatabaseClock() + LEASE
    )
    return claimed


def _deliver(delivery: AlertDelivery, now: datetime, counts: DeliveryCounts) -> None:
    error = _send(delivery)
    with transaction.atomic():
        row = AlertDelivery.objects.select_for_update(no_key=True).get(pk=delivery.pk)
        if row.status != DeliveryStatus.PENDING:
            return
        row.tries, row.last_error, row.lease_until = row.tries + 1, error, None
        if not error:
            row.deliver()
            row.finished_at = now
            counts.sent += 1
        elif row.tries > len(BACK_OFF):
            row.give_up()
            row.finished_at = now
            counts.failed += 1
            log.error("alert_undelivered", alert=row.alert_id, route=row.route_id, error=error)
        else:
            row.due_at = now + BACK_OFF[row.tries - 1]
            counts.retried += 1
        row.save(update_fields=["status", "tries", "last_error", "lease_until", "due_at", "finished_at"])


def _send(delivery: AlertDelivery) -> str:
    """The error in words, empty if it went out."""
    alert, route = delivery.alert, delivery.route
    address = f"{settings.PUBLIC_URL}{alert_path(alert.link, alert.invoice.public_id if alert.invoice else '')}"
    try:
        if route.channel == AlertChannel.SLACK:
            url = decrypt_json(route.secret_encrypted)["url"]
            text = f"*{alert.merchant}*: {_slack(alert.text)} <{address}|Open>"
            post_json(url, {"text": text})
        else:
            subject = " ".join(f"[{alert.merchant}] {alert.text}".split())[:150]
            body = f"{alert.text}\n\n{address}\n\nRaised {alert.raised_at:%Y-%m-%d %H:%M} UTC ({alert.kind})."
            EmailMessage(subject, body, to=[route.address], headers={"Auto-Submitted": "auto-generated"}).send()
    except (Undelivered, SMTPException, OSError) as error:
        return scrub_text(f"{type(error).__name__}: {error}")[:500]
    return ""


def alert_path(link: str, invoice_public_id: str) -> str:
    """Where an alert is looked into: its own link, else its invoice, else the list."""
    if link.startswith("/"):
        return link
    if invoice_public_id:
        return reverse("console:invoice", args=[invoice_public_id])
    return reverse("dashboard-alerts")


def _slack(text: str) -> str:
    """Slack's three control characters."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
