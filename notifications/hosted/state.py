"""What a payer's page shows: read from the link and the invoice, nothing else."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from invoices.models import Attempt, Connection, Invoice
from invoices.selectors.parties import charging_obstacle, connection_config
from invoices.states import (
    ATTEMPT_OPEN,
    INVOICE_OPEN,
    INVOICE_PAID,
    MODES_WE_CALL,
    AttemptStatus,
    TransactionKind,
    Trigger,
)
from notifications.links import link_read
from notifications.models import Message, PaymentLink
from notifications.states import LinkPurpose
from providers import registry
from providers.payer import PayerPages, TrialForm
from recovery_site.common.errors import InvalidInput
from retries.categories import Category
from retries.models import Case, RetryJob
from retries.selectors import case_failure
from retries.services.cases import latest_case
from retries.states import JobStatus
from tokens.models import Token
from tokens.selectors import token_obstacle


class View(StrEnum):
    """Which page; all but PAYABLE and CARD are a title and a sentence."""

    INVALID = "invalid"
    EXPIRED = "expired"
    CLOSED = "closed"
    PAID = "paid"
    WORKING = "working"
    LATER = "later"
    PAYABLE = "payable"
    CARD = "card"
    SAVED = "saved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payer:
    """A usable link with everything the page needs. `may_pay`: the method on file can be tried as it is."""

    link: PaymentLink
    view: View
    case: Case | None
    token: Token | None
    may_pay: bool
    must_confirm: bool
    declined: bool
    form: PayerPages | TrialForm | None

    @property
    def invoice(self) -> Invoice:
        return self.link.invoice


def payer_find(token: str, now: datetime) -> Payer | View:
    """The payer behind a token, or why there is none: INVALID for whatever we did not make, EXPIRED or revoked."""
    public_id = link_read(token)
    link = (
        PaymentLink.objects.select_related("invoice__connection", "customer__merchant")
        .filter(public_id=public_id)
        .first()
        if public_id
        else None
    )
    if link is None:
        return View.INVALID
    if link.revoked_at is not None or link.expires_at <= now:
        return View.EXPIRED
    return _payer(link)


def _payer(link: PaymentLink) -> Payer:
    invoice, case = link.invoice, latest_case(link.invoice)
    failure = case_failure(case) if case is not None and case.failure else None
    token = _token(link, failure.token_pk if failure else None)
    last = Attempt.objects.filter(invoice=invoice, kind=TransactionKind.CHARGE).order_by("-pk").first()
    usable = token is not None and not token_obstacle(token, token.card)
    by_payer = last is not None and last.trigger in (Trigger.CUSTOMER, Trigger.CARD_UPDATE)
    return Payer(
        link=link,
        view=_view(link, last),
        case=case,
        token=token,
        may_pay=usable and _charged_by_us(invoice.connection),
        must_confirm=case is not None and case.category == Category.AUTHENTICATION_REQUIRED and usable,
        declined=by_payer and last is not None and last.status == AttemptStatus.DECLINED,
        form=_form(invoice),
    )


def _charged_by_us(connection: Connection) -> bool:
    """True if the payer's wish to pay is one that this service can carry out."""
    ours = connection.mode in MODES_WE_CALL and connection.take_over_after is not None
    return ours and not charging_obstacle(connection) and registry.charges(connection.provider)


def _form(invoice: Invoice) -> PayerPages | TrialForm | None:
    """None also where the provider's pages need a key that this connection, which only watches, was never given."""
    try:
        return registry.payer(invoice.connection.provider, connection_config(invoice.connection))
    except InvalidInput:
        return None


def _token(link: PaymentLink, failed: int | None) -> Token | None:
    """The payment method to offer: the newest that may be tried, the one that failed before all others."""
    tokens = list(Token.objects.filter(customer_id=link.customer_id).select_related("card").order_by("-pk"))
    alive = [token for token in tokens if not token_obstacle(token, token.card)]
    by_pk = {token.pk: token for token in tokens}
    if alive:
        return next((token for token in alive if token.pk == failed), alive[0])
    return by_pk.get(failed or 0) or next(iter(tokens), None)


def _view(link: PaymentLink, last: Attempt | None) -> View:
    invoice = link.invoice
    if link.purpose == LinkPurpose.CARD and invoice.status not in INVOICE_OPEN:
        acted = Message.objects.filter(link=link, acted_at__isnull=False).exists()
        return View.SAVED if acted else View.CARD
    if invoice.status in INVOICE_PAID or (invoice.status in INVOICE_OPEN and invoice.due_minor == 0):
        return View.PAID
    if invoice.status not in INVOICE_OPEN:
        return View.CLOSED
    if last is not None and last.status in ATTEMPT_OPEN:
        return View.WORKING if last.status == AttemptStatus.SENDING else View.LATER
    wanted = RetryJob.objects.filter(
        invoice=invoice,
        kind=TransactionKind.CHARGE,
        status__in=(JobStatus.SCHEDULED, JobStatus.QUEUED, JobStatus.RUNNING),
        trigger__in=(Trigger.CUSTOMER, Trigger.CARD_UPDATE),
    )
    return View.WORKING if wanted.exists() else View.PAYABLE
