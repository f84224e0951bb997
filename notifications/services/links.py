"""Payment links: issued, revoked."""

from datetime import datetime, timedelta

from invoices.models import Invoice
from notifications.models import PaymentLink
from notifications.selectors import settings_of
from notifications.states import LinkPurpose


def link_issue(
    *, invoice: Invoice, issued_by: str, now: datetime, purpose: LinkPurpose = LinkPurpose.PAY
) -> PaymentLink:
    """A new link to the invoice's page; `notifications.links.link_url` gives its address."""
    days = settings_of(invoice.merchant_id).link_days
    return PaymentLink.objects.create(
        merchant_id=invoice.merchant_id,
        customer_id=invoice.customer_id,
        invoice=invoice,
        purpose=purpose,
        issued_by=issued_by[:100],
        issued_at=now,
        expires_at=now + timedelta(days=days),
    )


def links_revoke(*, invoice_pk: int, by: str, now: datetime, link_pk: int | None = None) -> int:
    """End an invoice's links (or one of them) at once; returns how many were still open."""
    links = PaymentLink.objects.filter(invoice_id=invoice_pk, revoked_at=None, expires_at__gt=now)
    if link_pk is not None:
        links = links.filter(pk=link_pk)
    return links.update(revoked_at=now, revoked_by=by[:100])
