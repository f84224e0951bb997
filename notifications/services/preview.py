"""A text filled with a real case, as its reader would get it; nothing is stored or sent."""

from dataclasses import replace
from datetime import datetime, timedelta

from accounts.models import Merchant
from invoices.models import Invoice
from notifications.catalogue import wording
from notifications.rendering import TextTemplate, with_links
from notifications.selectors import latest_failure, settings_of
from notifications.services.writing import Matter, Written, write
from retries.models import Case
from retries.selectors import case_failure
from retries.services.cases import latest_case

_LINKS = {"link": "https://example.com/pay/...", "unsubscribe": "https://example.com/stop/..."}


def preview_case(merchant: Merchant, template: TextTemplate, reference: str = "") -> Case | None:
    """The case to show a text with: that of the named invoice, else the newest that fits segment and category."""
    cases = Case.objects.filter(merchant=merchant).select_related(
        "policy_version", "invoice", "customer__merchant", "merchant"
    )
    if reference:
        return cases.filter(invoice__public_id=reference).order_by("-pk").first() or (
            cases.filter(invoice__number=reference).order_by("-pk").first()
        )
    fitting = cases.filter(segment=template.segment) if template.segment else cases
    fitting = fitting.filter(category=template.category) if template.category else fitting
    return fitting.order_by("-pk").first() or cases.order_by("-pk").first()


def preview_write(template: TextTemplate, case: Case, *, now: datetime) -> Written:
    """The message as the case's customer would read it, with a link that leads nowhere."""
    settings = settings_of(case.merchant_id)
    invoice = Invoice.objects.get(pk=case.invoice_id)
    case = latest_case(invoice) or case
    matter = Matter(
        customer=case.customer,
        invoice=invoice,
        case=case,
        attempt=latest_failure(invoice),
        token_pk=case_failure(case).token_pk,
        renewal_at=now + timedelta(days=settings.renewal_days),
    )
    case.customer.locale = case.customer.locale if _speaks(case, template) else template.locale
    written = write(template, matter, settings, now=now, until=now + timedelta(days=settings.link_days))
    return replace(written, text=with_links(written.text, **_LINKS), html=with_links(written.html, **_LINKS))


def _speaks(case: Case, template: TextTemplate) -> bool:
    return wording(case.customer.locale).language == wording(template.locale).language
