"""Reads about messages: settings in force, texts, facts for the decision."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from invoices.models import Attempt, Customer, Invoice
from invoices.states import AttemptStatus, Origin, TransactionKind, Trigger
from notifications.catalogue import language_of
from notifications.deciding import Cap, CaseFacts, Reader
from notifications.models import Message, MessageSettings, MessageTemplate, Suppression
from notifications.rendering import TextTemplate
from notifications.states import Sender
from recovery_site.common.compiled import Compiled, Param
from retries.models import Case
from retries.policy import SegmentPolicy
from retries.selectors import case_policy
from retries.states import CaseStatus, NextStep
from retries.timing import QuietHours
from retries.timing import customer_zone as zone_named
from tokens.models import Token

_FAILED = (AttemptStatus.DECLINED, AttemptStatus.ERRORED)
# Asked for every message that is looked at, which most are several times.
_SETTINGS = Compiled(lambda: MessageSettings.objects.filter(merchant=Param("merchant"))[:1])
_FAILED_RETRIES = Compiled(
    lambda: (
        Attempt.objects.filter(
            invoice=Param("invoice"),
            kind=TransactionKind.CHARGE,
            status__in=_FAILED,
            trigger=Trigger.AUTOMATIC,
            attempted_at__gt=Param("since"),
        )
        .exclude(origin=Origin.OUTSIDE)
        .values_list("pk", flat=True)
    )
)
_SUPPRESSED = Compiled(
    lambda: Suppression.objects.filter(
        merchant=Param("merchant"), address=Param("address"), lifted_at__isnull=True
    ).order_by("pk")[:1]
)
_SENT = Compiled(
    lambda: (
        Message.objects.filter(merchant=Param("merchant"), address=Param("address"), sent_at__gt=Param("since"))
        .exclude(pk=Param("besides"))
        .order_by("sent_at")
        .values_list("sent_at", flat=True)
    )
)


def settings_of(merchant_pk: int) -> MessageSettings:
    """The merchant's settings, or the defaults (an unsaved row)."""
    return _SETTINGS.first(merchant=merchant_pk) or MessageSettings(merchant_id=merchant_pk)


def own_templates(merchant_pk: int, name: str) -> list[TextTemplate]:
    """The merchant's own texts of a message that are in use."""
    rows = MessageTemplate.objects.filter(merchant_id=merchant_pk, name=name, enabled=True).order_by("pk")
    return [text_of(row) for row in rows]


def text_of(row: MessageTemplate) -> TextTemplate:
    """A merchant's text as the renderer takes it."""
    return TextTemplate(
        name=row.name,
        locale=row.locale,
        segment=row.segment,
        category=row.category,
        subject=row.subject,
        body=row.body,
        button=row.button,
        source=f"template {row.pk}",
    )


def locales_for(customer: Customer, settings: MessageSettings) -> list[str]:
    """Locales to look for a text in, the customer's own first; always ends with English."""
    wanted = []
    for locale in (customer.locale, settings.default_locale, "en"):
        locale = locale.replace("_", "-")
        wanted += [locale, locale.partition("-")[0], language_of(locale)]
    return list(dict.fromkeys(locale for locale in wanted if locale))


def zone_for(customer: Customer) -> ZoneInfo:
    """The customer's time zone, else the merchant's."""
    return zone_named(customer.timezone, customer.merchant.timezone)


def segment_policy(case: Case) -> SegmentPolicy:
    """What the case's policy says for its segment."""
    return case_policy(case).for_segment(case.segment)


def case_facts(case: Case, invoice: Invoice) -> CaseFacts:
    """The case for the decision; exact under the invoice's lock."""
    return CaseFacts(
        open=case.status == CaseStatus.OPEN,
        due_minor=invoice.due_minor,
        category=case.category,
        failed_retries=failed_retries(case),
        exhausted=case.exhausted_at is not None,
        paused_by=case.paused_by,
        next_step=NextStep(case.next_step),
        next_step_at=case.next_step_at,
    )


def failed_retries(case: Case) -> int:
    """Automatic retries that failed after the case had opened: ours, and those of a biller that retries by itself."""
    return len(_FAILED_RETRIES.all(invoice=case.invoice_id, since=case.opened_at))


def latest_failure(invoice: Invoice) -> Attempt | None:
    """The newest failed try of an invoice."""
    failed = Attempt.objects.filter(invoice=invoice, kind=TransactionKind.CHARGE, status__in=_FAILED)
    return failed.order_by("-attempted_at", "-pk").first()


def reader_of(
    customer: Customer, settings: MessageSettings, quiet: QuietHours | None, *, now: datetime, besides: int
) -> Reader:
    """The person a message is for; exact under the address's lock (`address_lock`)."""
    address = customer.email.strip().lower()
    cap = Cap(settings.cap_count, timedelta(days=settings.cap_days), timedelta(hours=settings.gap_hours))
    return Reader(
        address=address,
        suppressed=suppressed(customer.merchant_id, address),
        sent=sent_to(customer.merchant_id, address, since=now - max(cap.window, cap.gap), besides=besides),
        zone=zone_for(customer),
        quiet=quiet,
        cap=cap,
        merchant_writes=settings.sender == Sender.MERCHANT,
    )


def suppressed(merchant_pk: int, address: str) -> str:
    """Why this address gets no mail of the merchant, in words; empty if it may."""
    row = _SUPPRESSED.first(merchant=merchant_pk, address=address)
    return row.get_reason_display().lower() if row and address else ""


def sent_to(merchant_pk: int, address: str, *, since: datetime, besides: int) -> Sequence[datetime]:
    """When messages left for an address, also those that are being sent right now."""
    rows = _SENT.all(merchant=merchant_pk, address=address, since=since, besides=besides)
    return [at for at in rows if at is not None]


def token_on_file(customer: Customer, token_pk: int | None = None) -> Token | None:
    """The payment method to speak of: the one that failed, else the default, else the newest."""
    tokens = Token.objects.filter(customer=customer).select_related("card")
    if token_pk is not None and (named := tokens.filter(pk=token_pk).first()) is not None:
        return named
    return tokens.order_by("-is_default", "-pk").first()
