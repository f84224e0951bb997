"""The people of the merchants: they read alerts, answer what a machine may not decide, and try once more by hand."""

from datetime import datetime, timedelta

import structlog

from accounts.models import User
from invoices.models import ReviewItem
from invoices.services.ledger import Stamp
from notifications.models import Alert
from notifications.services.alerts import alert_acknowledge
from recovery_site.common.errors import RecoveryError
from recovery_site.demo.cast import Cast, Player
from retries.models import Case
from retries.services.answers import review_answer
from retries.services.manual import retry_now
from retries.states import CaseStatus, NextStep

log = structlog.get_logger()
# What is younger is left for whoever looks at the demo.
_ALERTS_AFTER, _QUESTIONS_AFTER = timedelta(days=2), timedelta(days=10)
_PATIENCE = timedelta(days=4)
# Answers that move no money; questions without one wait for a person.
_HARMLESS = ("noted", "keep")


def staff_day(cast: Cast, now: datetime) -> None:
    """What support does at the end of a day, at every merchant."""
    for player in cast.players.values():
        old = Alert.objects.filter(merchant=player.merchant, acknowledged_at=None, raised_at__lte=now - _ALERTS_AFTER)
        alert_acknowledge(
            merchant_pk=player.merchant.pk,
            alert_pks=list(old.values_list("pk", flat=True)),
            by=cast.support.username,
            now=now,
        )
        _answer(player, cast.support, now)
        if now.toordinal() % 3 == 0:
            _try_by_hand(player, cast.support, now)


def _answer(player: Player, person: User, now: datetime) -> None:
    items = ReviewItem.objects.filter(merchant=player.merchant, resolved_at=None, opened_at__lte=now - _QUESTIONS_AFTER)
    for item in items.order_by("pk"):
        answer = next((answer for answer in _HARMLESS if answer in item.choices), None)
        if answer is not None:
            note = "Looked at the customer's history; nothing else to do."
            review_answer(item_pk=item.pk, answer=answer, stamp=_stamp(person, "staff queue", now), note=note)


def _try_by_hand(player: Player, person: User, now: datetime) -> None:
    """The most valuable case that has waited for its customer for some days gets one more try."""
    case = (
        Case.objects.filter(
            merchant=player.merchant,
            status=CaseStatus.OPEN,
            next_step=NextStep.CUSTOMER,
            exhausted_at__lte=now - _PATIENCE,
        )
        .order_by("-amount_minor", "pk")
        .first()
    )
    if case is None:
        return
    reason = "The customer says that there is money on the card again."
    try:
        retry_now(invoice_pk=case.invoice_id, stamp=_stamp(person, "telephone", now), reason=reason)
    except RecoveryError as refused:
        log.info("demo_retry_refused", case=case.public_id, reason=refused.message)


def _stamp(person: User, cause: str, now: datetime) -> Stamp:
    return Stamp(actor=f"user:{person.pk}", cause=cause, now=now)
