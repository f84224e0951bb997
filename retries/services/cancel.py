"""Ends an invoice without payment: canceled, written off, its subscription over."""

from invoices.services.billing import open_charge
from invoices.services.ledger import Stamp, move
from invoices.states import TransactionStatus
from retries.locking import Scope, open_case
from retries.services.cases import case_close
from retries.services.planning import job_end


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
