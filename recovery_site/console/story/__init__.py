"""The whole story of one invoice: what is owed, what was tried, what happens next and why."""

from datetime import datetime

from invoices.models import Invoice
from invoices.states import ATTEMPT_OPEN, TransactionKind
from recovery_site.console.story import build
from recovery_site.console.story.gather import Rows, open_case_of, rows_gather
from recovery_site.console.story.methods import tokens_facts
from recovery_site.console.story.nextstep import next_step
from recovery_site.console.story.refundable import refundable_facts
from recovery_site.console.story.types import InvoiceStory
from retries.services.manual import legal_actions
from retries.states import JobStatus


def invoice_story(invoice: Invoice, *, now: datetime) -> InvoiceStory:
    """Read one invoice completely, in a constant number of queries. Locks nothing, writes nothing."""
    rows = rows_gather(invoice, now=now)
    people, refundable = rows.people, refundable_facts(rows)
    return InvoiceStory(
        now=now,
        merchant=invoice.merchant.name,
        merchant_public_id=invoice.merchant.public_id,
        invoice=build.invoice_facts(rows),
        customer=build.customer_facts(rows),
        connection=build.connection_facts(rows),
        case=build.case_facts(rows.case, people) if rows.case else None,
        earlier_cases=tuple(build.case_facts(case, people) for case in rows.earlier_cases),
        job=build.job_facts(rows),
        next_step=next_step(rows),
        transactions=tuple(build.transaction_facts(row, people) for row in rows.transactions),
        attempts=build.attempts_facts(rows),
        tokens=tokens_facts(rows),
        disputes=tuple(build.dispute_facts(row) for row in rows.disputes),
        reviews=tuple(build.review_facts(item, people, now) for item in rows.reviews),
        timeline=build.timeline(rows),
        notes=tuple(build.note_facts(row, people) for row in rows.notes),
        refundable=refundable,
        actions=_actions(rows) | ({"refund"} if refundable else set()),
    )


def _actions(rows: Rows) -> frozenset[str]:
    """The moves that would not be refused now; no second charge is offered while the result of one is open."""
    legal = legal_actions(rows.invoice, open_case_of(rows))
    in_flight = any(row.kind == TransactionKind.CHARGE and row.status in ATTEMPT_OPEN for row in rows.attempts)
    running = rows.job is not None and rows.job.status == JobStatus.RUNNING
    return legal - {"retry"} if in_flight or running else legal
