"""What mail systems report, applied to the message's row; and where they report it to."""

import base64
import secrets
from dataclasses import dataclass, field
from datetime import datetime

from django.db import transaction
from django.urls import reverse

from accounts.models import Merchant
from invoices.services.ledger import Stamp, invoice_lock, record_event
from notifications.models import Message, MessageSettings
from notifications.reports import Report, Told
from notifications.services.suppressions import address_suppress
from notifications.services.work import bounce_note
from notifications.states import MessageStatus, SuppressionReason
from recovery_site.common.crypto import encrypt_json
from recovery_site.common.db import for_no_key_update
from recovery_site.common.errors import NotFound

_OUT = (MessageStatus.SENT, MessageStatus.DELIVERED, MessageStatus.UNCONFIRMED)


@dataclass(frozen=True, slots=True)
class ReportAddress:
    """Where a merchant's mail service reports to; the secret is told only this once."""

    url: str
    secret: str = field(repr=False)


def report_address_create(*, merchant: Merchant, actor: str) -> ReportAddress:
    """A new secret for the merchant's report address; the one before is void."""
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
    row, _ = MessageSettings.objects.update_or_create(
        merchant=merchant,
        defaults={"events_secret_encrypted": encrypt_json({"secret": secret}), "changed_by": actor[:100]},
    )
    return ReportAddress(reverse("mail-reports", args=[row.events_uuid]), secret)


@transaction.atomic
def report_apply(*, report: Report, now: datetime, merchant_pk: int | None = None) -> bool:
    """Write down what a mail system reported; False if that was known. Raises NotFound for a mail that is not ours.

    A bounce or a complaint stops all further mail to the address. Writes `message.bounced` and the like.
    """
    messages = Message.objects.filter(public_id=report.message)
    if merchant_pk is not None:
        messages = messages.filter(merchant_id=merchant_pk)
    invoice_pk = messages.values_list("invoice_id", flat=True).first()
    if invoice_pk is None:
        raise NotFound("No mail of this service has that Message-ID.")
    invoice = invoice_lock(invoice_pk)
    message = for_no_key_update(messages).select_related("case", "attempt").get()
    stamp = Stamp("mail", f"report:{report.why}"[:200], now)
    if report.told is Told.BOUNCED:
        if message.status not in _OUT:
            return False
        bounce_note(message, invoice, stamp, why=f"The mail came back ({report.why}).")
        message.save()
        return True
    if report.told is Told.DELIVERED:
        if message.status not in (MessageStatus.SENT, MessageStatus.UNCONFIRMED):
            return False
        message.deliver()
        message.delivered_at = now
        message.save(update_fields=["status", "delivered_at"])
        return True
    new = address_suppress(
        merchant_pk=message.merchant_id,
        address=message.address,
        reason=SuppressionReason.COMPLAINT,
        now=now,
        message=message,
    )
    if new:
        record_event(
            invoice=invoice,
            kind="message.complained",
            stamp=stamp,
            subject_type="message",
            subject_id=message.public_id,
            data={"message": message.public_id, "template": message.template},
        )
    return new
