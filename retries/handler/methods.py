"""Payment methods that appear, change or go away. A new or updated one resumes what waits for it."""

from invoices.models import Connection
from invoices.services.ledger import Stamp, invoice_lock
from invoices.services.parties import customer_lock
from providers.base import PaymentEvent
from retries.handler.entry import enter
from retries.handler.resolve import Subject
from retries.locking import Scope
from retries.models import Case, RetryJob
from retries.services.planning import case_plan
from retries.services.resume import cases_resume
from retries.states import JOB_SLOT, CaseStatus, JobStatus
from tokens.models import Token
from tokens.services import cards_lock, token_remove


def method_updated(event: PaymentEvent, connection: Connection, subject: Subject, stamp: Stamp) -> str:
    """METHOD_UPDATED: learn it, revive what it revives, and charge what waited for the customer."""
    if subject.customer_pk is None:
        return "The payment method belongs to no customer yet."
    known = (
        event.method is not None
        and Token.objects.filter(connection=connection, provider_token=event.method.token).exists()
    )
    entry = enter(event, subject.customer_pk, stamp)
    if entry.method is not None and (entry.revived or not known):
        cases_resume(entry.customer, entry.cards, token_pk=entry.method.token_pk, stamp=stamp)
    return ""


def method_removed(event: PaymentEvent, connection: Connection, subject: Subject, stamp: Stamp) -> str:
    """METHOD_REMOVED: the token is dead; retries that were to use it are planned anew."""
    assert event.method is not None
    token = Token.objects.filter(connection=connection, provider_token=event.method.token).first()
    if token is None:
        return "This ledger does not know the payment method."
    customer = customer_lock(token.customer_id)
    cards = cards_lock(customer)
    token_remove(token_pk=token.pk)
    jobs = RetryJob.objects.filter(token=token, status__in=(*JOB_SLOT, JobStatus.QUEUED)).exclude(
        status=JobStatus.RUNNING
    )
    for invoice_pk in jobs.values_list("invoice_id", flat=True).order_by("invoice_id"):
        scope = Scope(customer=customer, cards=cards, invoice=invoice_lock(invoice_pk))
        case = Case.objects.filter(invoice=scope.invoice, status=CaseStatus.OPEN).first()
        if case is not None:
            case_plan(scope, case, stamp)
    return ""
