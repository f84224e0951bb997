"""Ends without payment: of an invoice (canceled, written off, its subscription over), or only of its retries."""

from django.db import transaction

from invoices.models import Attempt, Invoice
from invoices.services.billing import open_charge
from invoices.services.ledger import Stamp, move, record_event
from invoices.states import ATTEMPT_OPEN, InvoiceStatus, TransactionKind, TransactionStatus
from recovery_site.common.errors import Conflict
from retries.locking import Scope, open_case, scope_lock
from retries.services.booking import job_end
from retries.services.cases import case_close


def invoice_end(scope: Scope, *, reason: str, write_off: bool, stamp: Stamp) -> None:
    """Cancel the locked invoice, its job and case. A charge in flight stays and ends as its result says:
    FAILED on a decline, DONE with the alert "paid after cancel" on a success."""
    invoice = scope.invoice
    job_end(scope, stamp)
    charge = open_charge(invoice)
    if charge is not None and charge.status != TransactionStatus.PROCESSING:
        move(charge, "cancel", invoice=invoice, stamp=stamp, finished_at=stamp.now)
    move(invoice, "cancel", invoice=invoice, stamp=stamp, cancel_reason=reason[:40], data={"reason": reason})
    case = open_case(invoice)
    if case is not None:
        case_close(scope, case, "write_off" if write_off else "cancel", reason=reason, stamp=stamp)


@transaction.atomic
def retry_cancel(*, invoice: Invoice, stamp: Stamp, reason: str) -> None:
    """No further retry of this failure: job, transaction and case end CANCELED, the invoice stays owed.

    A failure that is told later opens a new case. Writes `staff.cancel_retry`. Raises Conflict without an open case,
    and while a charge is in flight, whose result decides.
    """
    scope = scope_lock(customer_pk=invoice.customer_id, invoice_pk=invoice.pk)
    case = open_case(scope.invoice)
    if case is None:
        raise Conflict("Nothing is being retried for this transaction.")
    if Attempt.objects.filter(invoice=scope.invoice, kind=TransactionKind.CHARGE, status__in=ATTEMPT_OPEN).exists():
        raise Conflict("A charge of this transaction is in flight: its result comes first.")
    record_event(invoice=scope.invoice, kind="staff.cancel_retry", stamp=stamp, data={"reason": reason[:300]})
    job_end(scope, stamp)
    charge = open_charge(scope.invoice)
    if charge is not None and charge.status in (TransactionStatus.INIT, TransactionStatus.RETRYING):
        move(charge, "cancel", invoice=scope.invoice, stamp=stamp, finished_at=stamp.now)
    if scope.invoice.status == InvoiceStatus.PROCESSING:
        move(scope.invoice, "fail", invoice=scope.invoice, stamp=stamp, data={"why": "retries canceled"})
    case_close(scope, case, "cancel", reason="retries canceled", stamp=stamp)
