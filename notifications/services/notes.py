"""Notes before anything fails: a card that expires soon, a renewal that it will not live to see. One row each."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Exists, OuterRef, Q, QuerySet

from accounts.models import Merchant
from invoices.models import Customer, Invoice
from invoices.states import INVOICE_PAID
from notifications.models import Message, MessageSettings
from notifications.renewals import next_renewal
from retries.models import Case
from retries.policy import Audience
from retries.states import CaseStatus
from tokens.models import Token
from tokens.selectors import card_expires_at
from tokens.states import TokenStatus

EXPIRING, RENEWAL = "card_expiring", "renewal_upcoming"
# How often one looks, on the service's clock.
_EVERY = timedelta(hours=12)
# Cards that expired longer ago than a yearly renewal can be away.
_MONTHS_BACK = 13


@dataclass(frozen=True, slots=True)
class Note:
    """What is worth saying about a payment method that will stop working. `key` makes it one message."""

    template: str
    key: str
    token: Token
    invoice: Invoice
    planned_for: datetime
    renewal_at: datetime | None = None


def notes_plan(*, now: datetime) -> int:
    """Plan the notes of every merchant whose turn it is; returns how many are new."""
    stale = Q(message_settings=None) | Q(message_settings__notes_planned_at=None)
    stale |= Q(message_settings__notes_planned_at__lte=now - _EVERY)
    planned = 0
    for merchant in Merchant.objects.filter(stale):
        settings, _ = MessageSettings.objects.get_or_create(merchant=merchant)
        if settings.card_notes:
            planned += _plan(merchant, settings, now)
        MessageSettings.objects.filter(pk=settings.pk).update(notes_planned_at=now)
    return planned


def _plan(merchant: Merchant, settings: MessageSettings, now: datetime) -> int:
    notes = [note for token in _expiring(merchant, settings, now) for note in _notes(token, settings, now)]
    known = set(Message.objects.filter(note_key__in=[note.key for note in notes]).values_list("note_key", flat=True))
    fresh = [note for note in notes if note.key not in known]
    Message.objects.bulk_create(
        [
            Message(
                merchant=merchant,
                customer_id=note.token.customer_id,
                invoice=note.invoice,
                audience=Audience.CUSTOMER.value,
                template=note.template,
                note_key=note.key,
                planned_for=note.planned_for,
                due_at=max(now, note.planned_for),
            )
            for note in fresh
        ],
        ignore_conflicts=True,
    )
    return len(fresh)


def _expiring(merchant: Merchant, settings: MessageSettings, now: datetime) -> QuerySet[Token]:
    """Live payment methods in use whose card's last month is near or just over; providers write two or four digits."""
    months = Q()
    last = now + timedelta(days=max(settings.expiry_days, settings.renewal_days) + 31)
    for back in range(_MONTHS_BACK + 2):
        index = last.year * 12 + last.month - 1 - back
        year, month = divmod(index, 12)
        months |= Q(card__exp_month=month + 1, card__exp_year__in=(year, year % 100))
    others = Token.objects.filter(customer=OuterRef("customer"), is_default=True).exclude(pk=OuterRef("pk"))
    failing = Case.objects.filter(customer=OuterRef("customer"), status=CaseStatus.OPEN)
    tokens = Token.objects.filter(months, ~Exists(others), ~Exists(failing), merchant=merchant, status=TokenStatus.LIVE)
    return tokens.filter(card__kind="card", card__stopped_at=None).select_related("card", "customer").order_by("pk")


def _notes(token: Token, settings: MessageSettings, now: datetime) -> Iterator[Note]:
    expires_at, invoice = card_expires_at(token.card), _last_paid(token.customer)
    if expires_at is None or invoice is None:
        return
    renewal = next_renewal(invoice.issued_at, invoice.interval, now)
    if renewal is None:
        return
    month = f"{token.card.exp_year}-{token.card.exp_month}"
    told_at = expires_at - timedelta(days=settings.expiry_days)
    if told_at <= now < expires_at:
        yield Note(EXPIRING, f"{EXPIRING}:{token.pk}:{month}", token, invoice, told_at)
    told_at = renewal - timedelta(days=settings.renewal_days)
    if expires_at <= renewal and told_at <= now:
        key = f"{RENEWAL}:{token.pk}:{month}:{renewal:%Y-%m-%d}"
        yield Note(RENEWAL, key, token, invoice, told_at, renewal)


def _last_paid(customer: Customer) -> Invoice | None:
    """The newest paid invoice of a subscription: what will be billed again."""
    paid = Invoice.objects.filter(customer=customer, status__in=INVOICE_PAID).exclude(subscription_id="")
    return paid.order_by("-issued_at", "-pk").first()


def note_still_true(message: Message, settings: MessageSettings, now: datetime) -> Note | None:
    """The note as it stands now, None if its reason is gone: a new card, a new expiry, no subscription any more."""
    tokens = _expiring(message.merchant, settings, now).filter(customer_id=message.customer_id)
    notes = (note for token in tokens for note in _notes(token, settings, now))
    return next((note for note in notes if note.key == message.note_key), None)
