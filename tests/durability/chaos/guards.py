"""The guards of DESIGN section 6, each of which can be switched off in a process to show that it is needed."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

from django.db.models.functions import Now

from invoices.models import Attempt, Invoice, Transaction
from invoices.services.billing import charge_create, open_charge
from invoices.services.ledger import Stamp
from recovery_site.common.db import for_no_key_update
from retries.engine import prepare
from retries.engine.claim import Claim
from retries.locking import Scope, scope_lock
from retries.models import RetryJob
from retries.reconciliation import resolution, sweep
from retries.services import outcomes, planning

Patch = Callable[[Any, str, Any], None]


def switch_off(name: str, patch: Patch = setattr) -> None:
    """Take one guard away, in this process or as long as `patch` lasts."""
    _GUARDS[name](patch)


def _claim_check(patch: Patch) -> None:
    """Step 2 believes every worker that the job is its own."""

    def ask(claim: Claim, stamp: Stamp) -> Any:
        scope = scope_lock(customer_pk=claim.customer_pk, invoice_pk=claim.invoice_pk)
        job = for_no_key_update(RetryJob.objects.filter(pk=claim.job_pk)).get()
        charge = for_no_key_update(Transaction.objects.filter(pk=job.transaction_id)).get()
        check = prepare._Check(scope, job, charge, stamp.now)
        return prepare._replan(scope, job, check, stamp) if check.obstacle else check

    patch(prepare, "_ask", ask)


def _same_key(patch: Patch) -> None:
    """A charge that is sent again gets a new key."""
    build = resolution.charge_request

    def renewed(*given: Any, **named: Any) -> Any:
        return replace(build(*given, **named), idempotency_key=f"renewed-{uuid4()}")

    patch(resolution, "charge_request", renewed)


def _unknown_is_not_failed(patch: Patch) -> None:
    """A lost answer counts as a charge that did not happen."""

    def failed(scope: Scope, attempt: Attempt, *, why: str, stamp: Stamp, raw: Any = None) -> None:
        outcomes.charge_did_not_happen(
            scope,
            attempt,
            code="network_error",
            provider_name="sandbox",
            retry_after=None,
            failed_at=stamp.now,
            stamp=stamp,
        )

    patch(outcomes, "charge_is_unknown", failed)


def _lease(patch: Patch) -> None:
    """Whoever sends something is taken for dead at once."""
    patch(sweep, "DatabaseClock", lambda: Now() + timedelta(days=1))
    patch(resolution, "_lease_over", lambda attempt: True)


def _amount(patch: Patch) -> None:
    """What was planned is charged, whatever has been paid since."""

    def as_planned(invoice: Invoice, stamp: Stamp) -> Transaction:
        return open_charge(invoice) or charge_create(
            invoice, amount_minor=invoice.amount_minor, currency=invoice.currency, stamp=stamp
        )

    patch(planning, "charge_for_due", as_planned)
    checked = prepare._Check.obstacle.func  # type: ignore[attr-defined]

    def unchecked(self: Any) -> str:
        found: str = checked(self)
        return (
            (self._switches() or self._flights() or self._token()) if found == "the amount due has changed" else found
        )

    cached = type(prepare._Check.__dict__["obstacle"])(unchecked)
    cached.__set_name__(prepare._Check, "obstacle")
    patch(prepare._Check, "obstacle", cached)


_GUARDS: Mapping[str, Callable[[Patch], None]] = {
    "claim_check": _claim_check,
    "same_key": _same_key,
    "unknown_is_not_failed": _unknown_is_not_failed,
    "lease": _lease,
    "amount": _amount,
}
GUARDS = tuple(_GUARDS)
