"""A message's text: chosen, filled with the case's facts, stored with marks where its secrets go."""

from dataclasses import dataclass
from datetime import datetime

from django.template.loader import render_to_string

from invoices.models import Attempt, Customer, Invoice
from notifications.catalogue import Wording, shipped_templates, wording
from notifications.models import Message, MessageSettings
from notifications.reasons import reason_key
from notifications.rendering import (
    LINK_MARK,
    UNSUBSCRIBE_MARK,
    Filled,
    TextTemplate,
    choose_template,
    fill,
    plain_text,
)
from notifications.selectors import locales_for, own_templates, segment_policy, token_on_file, zone_for
from recovery_site.common.errors import NotFound
from recovery_site.common.money import format_money_locally
from retries.models import Case
from tokens.models import Card
from tokens.networks import NETWORK_NAMES
from tokens.selectors import card_expires_at, expiry_year


@dataclass(frozen=True, slots=True)
class Written:
    """Subject, plain text and HTML of one message, and what they were made from."""

    subject: str
    text: str
    html: str
    locale: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Matter:
    """What a message is about. `renewal_at` is set for notes before a renewal, `token_pk` names the payment method."""

    customer: Customer
    invoice: Invoice
    case: Case | None
    attempt: Attempt | None
    token_pk: int | None
    renewal_at: datetime | None = None


def template_for(message: Message, customer: Customer, settings: MessageSettings) -> TextTemplate:
    """The text for this message in the customer's language. Raises NotFound if nobody has written it."""
    chosen = choose_template(
        own_templates(message.merchant_id, message.template),
        shipped_templates(),
        name=message.template,
        locales=locales_for(customer, settings),
        segment=message.segment,
        category=message.category,
    )
    if chosen is None:
        raise NotFound(f"There is no text named {message.template!r}: add it under Message templates in the admin.")
    return chosen


def write(
    template: TextTemplate, matter: Matter, settings: MessageSettings, *, now: datetime, until: datetime
) -> Written:
    """Fill a text with what is known of the matter; `until` is when its link ends."""
    spoken = wording(template.locale)
    if matter.customer.locale:
        own = wording(matter.customer.locale)
        spoken = own if own.language == spoken.language else spoken
    filled = fill(template, values_of(matter, settings, spoken, now=now))
    merchant = sender_name(matter.customer, settings)
    footer = [
        spoken.say("mail", "link_until", date=spoken.date(until, zone_for(matter.customer))),
        spoken.say("mail", "why", merchant=merchant),
    ]
    if settings.contact:
        footer.append(spoken.say("mail", "questions", contact=settings.contact))
    text = plain_text(filled, [*footer, f"{spoken.say('mail', 'unsubscribe')}: {UNSUBSCRIBE_MARK}"])
    html = _html(filled, footer, spoken, merchant)
    return Written(filled.subject, text, html, spoken.locale, template.source)


def _html(filled: Filled, footer: list[str], spoken: Wording, merchant: str) -> str:
    context = {
        "filled": filled,
        "footer": footer,
        "merchant": merchant,
        "language": spoken.language,
        "link": LINK_MARK,
        "unsubscribe": UNSUBSCRIBE_MARK,
        "link_hint": spoken.say("mail", "link_hint"),
        "unsubscribe_text": spoken.say("mail", "unsubscribe"),
    }
    return render_to_string("mail/message.html", context)


def sender_name(customer: Customer, settings: MessageSettings) -> str:
    return settings.sender_name or customer.merchant.name


def values_of(matter: Matter, settings: MessageSettings, spoken: Wording, *, now: datetime) -> dict[str, str]:
    """The values of every placeholder, in the customer's language, zone and way of writing amounts."""
    customer, invoice, case = matter.customer, matter.invoice, matter.case
    zone, name = zone_for(customer), customer.name.strip()
    token = token_on_file(customer, matter.token_pk)
    card = token.card if token else None
    deadline = case.opened_at + segment_policy(case).grace if case else now
    return {
        "greeting": spoken.say("words", "greeting_named", name=name) if name else spoken.say("words", "greeting"),
        "name": name,
        "merchant": sender_name(customer, settings),
        "amount": format_money_locally(invoice.due_minor or invoice.amount_minor, invoice.currency, spoken.locale),
        "description": described(invoice, spoken),
        "invoice": str(invoice.number or invoice.provider_invoice_id or ""),
        "reason": spoken.say("reasons", case_reason(case, card, now)) if case else "",
        "card": card_words(card, spoken),
        "deadline": spoken.date(deadline, zone),
        "expiry": spoken.month(expiry_year(card), card.exp_month) if card and card.exp_month and card.exp_year else "",
        "renewal": spoken.date(matter.renewal_at, zone) if matter.renewal_at else "",
    }


def described(invoice: Invoice, spoken: Wording) -> str:
    """What the money is for, as shortly as it is known."""
    number = invoice.number or invoice.provider_invoice_id or ""
    return invoice.description or invoice.plan or f"{spoken.say('page', 'invoice')} {number}".strip()


def case_reason(case: Case, card: Card | None, now: datetime) -> str:
    """The key of the sentence that tells the payer why."""
    ends = card_expires_at(card) if card else None
    hard = case.category == "HARD_DECLINE"
    return reason_key(
        case.category, case.code, expired=hard and ends is not None and ends <= now, returned=case.automatic_barred
    )


def card_words(card: Card | None, spoken: Wording) -> str:
    """`Visa ending in 4242` in the customer's language."""
    if card is None or not card.last4:
        return spoken.say("words", "some_card")
    if card.kind != "card":
        return spoken.say("words", "bank_account", last4=card.last4)
    if card.network not in NETWORK_NAMES:
        return f"•••• {card.last4}"
    return spoken.say("words", "card", network=NETWORK_NAMES[card.network], last4=card.last4)
